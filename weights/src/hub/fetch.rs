//! Downloads into Hugging Face's cache, resumed and checked.

use std::{
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use super::{
    Kind, cache,
    cached::{is_sound, mark, remove},
    client::{Client, Failure, in_cache},
    verify::verify,
};
use crate::WeightsError;

/// Tries for a file whose contents are not what they should be.
const TRIES: usize = 3;

/// Whether the user forbids the network.
pub(super) fn offline() -> bool {
    let set = |name: &str| {
        std::env::var(name).is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
    };
    set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE")
}

/// The folder of a snapshot with the files that `choose` picks from all names.
pub(super) fn folder(id: &str, kind: Kind, choose: &dyn Fn(&[String]) -> Vec<String>) -> Result<PathBuf, WeightsError> {
    let files = files(id, kind, choose)?;
    // Every chosen name is without a folder of its own.
    Ok(files[0].parent().map(Path::to_owned).unwrap_or_default())
}

/// The files that `choose` picks from all names, in the same order.
pub(super) fn files(
    id: &str,
    kind: Kind,
    choose: &dyn Fn(&[String]) -> Vec<String>,
) -> Result<Vec<PathBuf>, WeightsError> {
    let fail = |reason: String| WeightsError::Hub { id: id.to_owned(), reason, advice: kind.advice(id) };
    if offline() {
        let cache = cache().path().display().to_string();
        return Err(fail(format!("is not whole in the cache {cache}, and HF_HUB_OFFLINE forbids the network")));
    }
    let client = Client::new(kind.repo(id)).map_err(fail)?;
    let info = client.info().map_err(fail)?;
    let mut names: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
    names.sort();
    let chosen = choose(&names);
    if chosen.is_empty() {
        return Err(fail(format!("has none of the files that are read, only: {}", names.join(", "))));
    }
    let blobs = cache().repo(kind.repo(id)).blob_path("");
    let _lock = lock(&blobs, id);
    let mut paths = Vec::new();
    for name in &chosen {
        let here = cache().repo(kind.repo(id)).pointer_path(&info.sha).join(name);
        let path = download(&client, &blobs, name, &here).map_err(fail)?;
        // The snapshot's folder is named after the commit.
        if !path.ancestors().any(|folder| folder.ends_with(&info.sha)) {
            return Err(fail("changed on the hub while it was downloaded; run it again".to_owned()));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// The file of a snapshot that is, or will be, at `here`: downloads it, or the rest of it, and checks it. Until it is checked, a mark lies beside it.
fn download(client: &Client, blobs: &Path, name: &str, here: &Path) -> Result<PathBuf, String> {
    let fail = |error: std::io::Error| format!("{name}: {}", in_cache(blobs, &error));
    if is_sound(here).map_err(fail)? {
        return Ok(here.to_owned());
    }
    let etag = client.metadata(name).map_err(|reason| format!("{name}: {reason}"))?.etag().to_owned();
    std::fs::create_dir_all(blobs).map_err(fail)?;
    let (part, mark) = (blobs.join(&etag).with_extension("part"), mark(&blobs.join(&etag)));
    for _ in 0..TRIES {
        std::fs::write(&mark, "").map_err(fail)?;
        match client.download(name, &part) {
            Ok(path) => {
                let whole = path.canonicalize().map_err(fail)?;
                let sound = verify(&whole, &etag).map_err(fail)?;
                if !sound {
                    remove(&whole).map_err(fail)?;
                }
                // Only now: what is damaged must not be there without it, wherever this is stopped.
                remove(&mark).map_err(fail)?;
                if sound {
                    return Ok(path);
                }
            }
            Err(Failure::StalePart) => remove(&part).map_err(fail)?,
            Err(Failure::Sentence(reason)) => return Err(format!("{name}: {reason}")),
        }
    }
    Err(format!(
        "{name}: what the hub sent does not have the checksum that it announced, {TRIES} times; nothing was kept"
    ))
}

/// Keeps other processes from downloading the same, as long as what it returns lives; `None` where the file system has no locks, or is read only.
fn lock(blobs: &Path, id: &str) -> Option<File> {
    std::fs::create_dir_all(blobs).ok()?;
    let file = File::options().create(true).truncate(false).write(true).open(blobs.join("secateur.lock")).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            // A stderr that nobody reads is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{id}: waiting for another process that downloads it");
            file.lock().ok()?;
        }
        Err(TryLockError::Error(_)) => return None,
        Ok(()) => {}
    }
    Some(file)
}
