//! Downloads into Hugging Face's cache, resumed and checked.

use std::{
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use hf_hub::{
    Cache,
    api::sync::{Api, ApiBuilder, ApiError, ApiRepo},
};

use super::{
    Kind, cache,
    cached::{is_sound, mark, remove},
    verify::verify,
};
use crate::WeightsError;

/// Tries for a file whose contents are not what they should be.
const TRIES: usize = 3;
/// Tries to go on with a broken connection.
const RETRIES: usize = 3;

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
    let api = api().map_err(fail)?;
    let repo = api.repo(kind.repo(id));
    let info = repo.info().map_err(|error| fail(sentence(&error)))?;
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
        let path = download(&api, &repo, &blobs, name, &here).map_err(fail)?;
        // The snapshot's folder is named after the commit.
        if !path.ancestors().any(|folder| folder.ends_with(&info.sha)) {
            return Err(fail("changed on the hub while it was downloaded; run it again".to_owned()));
        }
        paths.push(path);
    }
    Ok(paths)
}

fn api() -> Result<Api, String> {
    let mut builder = ApiBuilder::from_cache(cache()).with_retries(RETRIES);
    if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control())) {
            return Err(format!("cannot be fetched: HF_ENDPOINT is `{endpoint}`, which is no http address"));
        }
        builder = builder.with_endpoint(endpoint);
    }
    let token = std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    // The saved login lies in the home, wherever the cache is.
    builder = builder.with_token(token.or_else(|| Cache::from_env().token()));
    builder = builder.with_user_agent("secateur", env!("CARGO_PKG_VERSION"));
    builder.build().map_err(|error| sentence(&error))
}

/// The file of a snapshot that is, or will be, at `here`: downloads it, or the rest of it, and checks it. Until it is checked, a mark lies beside it.
fn download(api: &Api, repo: &ApiRepo, blobs: &Path, name: &str, here: &Path) -> Result<PathBuf, String> {
    let fail = |error: std::io::Error| format!("{name}: {error}");
    if is_sound(here).map_err(fail)? {
        return Ok(here.to_owned());
    }
    let etag =
        api.metadata(&repo.url(name)).map_err(|error| format!("{name}: {}", sentence(&error)))?.etag().to_owned();
    std::fs::create_dir_all(blobs).map_err(fail)?;
    let (part, mark) = (blobs.join(&etag).with_extension("part"), mark(&blobs.join(&etag)));
    for _ in 0..TRIES {
        std::fs::write(&mark, "").map_err(fail)?;
        match repo.download(name) {
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
            // What is there of it is longer than the file, or the whole file: hf-hub would ask for the rest for ever.
            Err(error) if stale_part(&error) => remove(&part).map_err(fail)?,
            Err(error) => return Err(format!("{name}: {}", sentence(&error))),
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

fn stale_part(error: &ApiError) -> bool {
    match error {
        ApiError::InvalidResume => true,
        ApiError::TooManyRetries(inner) => stale_part(inner),
        error => status(error) == Some(416),
    }
}

/// The status that the server answered with.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(inner) => status(inner),
        _ => None,
    }
}

/// What went wrong, for people.
fn sentence(error: &ApiError) -> String {
    match status(error) {
        // The hub does not tell strangers which it is.
        Some(401 | 403 | 404) => {
            "is not on the hub, or not open to everyone: check the id, or set HF_TOKEN to a token that may read it"
                .to_owned()
        }
        Some(status) => format!("cannot be fetched: the hub answered with status {status}; try again later"),
        None => match error {
            ApiError::LockAcquisition(_) => "is being downloaded by another process; wait for it".to_owned(),
            ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_) => {
                format!("cannot be fetched: HF_ENDPOINT does not answer like a hub ({error})")
            }
            error => format!("cannot be fetched: the hub cannot be reached, or the connection broke ({error})"),
        },
    }
}
