//! Downloads into Hugging Face's cache, resumed and checked.

use std::{
    fs::{File, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    Kind,
    cache::{RepoCache, cache, remove},
    cached::is_there,
    client::{Client, Failure, Metadata, in_cache},
    verify::verify,
};
use crate::{
    WeightsError,
    folder::{ADAPTER, base_model, what_else_of},
    text::impostor,
};

/// The number of tries for a file whose contents have another checksum.
const TRIES: usize = 3;

/// Whether the program itself stays off the network.
static STAYS_OFFLINE: AtomicBool = AtomicBool::new(false);

/// Forbids the network in this process from now on. Names from other people's files may only be looked up on this
/// machine.
pub fn stay_offline() {
    STAYS_OFFLINE.store(true, Ordering::Relaxed);
}

/// Whether the network is forbidden, by the user or by the program itself.
pub(super) fn offline() -> bool {
    STAYS_OFFLINE.load(Ordering::Relaxed) || forbidden()
}

/// Whether the user forbids the network.
fn forbidden() -> bool {
    let set = |name: &str| {
        std::env::var(name).is_ok_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()))
    };
    set("HF_HUB_OFFLINE") || set("TRANSFORMERS_OFFLINE")
}

/// The error about the id that the user gave.
pub(super) fn error(id: &str, kind: Kind, reason: String) -> WeightsError {
    // A user who mistyped a folder did not mean the hub.
    let unknown = kind == Kind::Model
        && ["is not on the hub", "is not in the cache"].iter().any(|start| reason.starts_with(start));
    let reason = if unknown { format!("is no folder here, and as an id of the hub it {reason}") } else { reason };
    WeightsError::Hub { id: id.to_owned(), reason, advice: kind.advice(id) }
}

/// The error about a repository that is not whole in the cache when the network is forbidden.
pub(super) fn not_cached(id: &str, kind: Kind, missing: Option<&str>) -> WeightsError {
    let cache = cache().display().to_string();
    let why = if forbidden() { "HF_HUB_OFFLINE forbids to fetch it" } else { "nothing is fetched here" };
    let reason = match missing {
        Some(missing) => {
            format!("is in the cache {cache} only in part: {missing} is missing, and {why}")
        }
        None => format!("is not in the cache {cache}, and {why}"),
    };
    error(id, kind, reason)
}

/// The files that `choose` picks from all names, in the same order. If a `whole` checkpoint is wanted, repositories that hold something
/// else are called what they are.
pub(super) fn files(
    id: &str,
    kind: Kind,
    whole: bool,
    choose: &dyn Fn(&[String]) -> Vec<String>,
) -> Result<Vec<PathBuf>, WeightsError> {
    let fail = |reason: String| error(id, kind, reason);
    if offline() {
        return Err(not_cached(id, kind, None));
    }
    let client = Client::new(kind, id).map_err(fail)?;
    let listing = client.listing().map_err(fail)?;
    let mut names = listing.names;
    names.sort();
    let cache = RepoCache::new(kind, id);
    if kind == Kind::Model && whole {
        let settings = names.iter().find(|name| *name == ADAPTER);
        let base = settings.and_then(|name| base_model(&download(&client, &cache, name, &listing.commit).ok()?));
        if let Some(what) = what_else_of(&names, &base.unwrap_or_default()) {
            return Err(fail(format!("holds {what}")));
        }
    }
    let chosen = choose(&names);
    if chosen.is_empty() {
        return Err(fail(format!("has none of the files that are read, only: {}", shown(&names))));
    }
    let _lock = lock(&cache.blobs(), id);
    let mut paths = Vec::new();
    for name in &chosen {
        let in_file = |reason: String| fail(format!("{}: {reason}", crate::text::printable(name)));
        paths.push(download(&client, &cache, name, &listing.commit).map_err(in_file)?);
    }
    cache.set_commit(&listing.commit).map_err(|error| fail(in_cache(error)))?;
    Ok(paths)
}

/// The names as a list in a sentence, without control characters.
fn shown(names: &[String]) -> String {
    const MOST: usize = 12;
    let listed: Vec<String> = names.iter().take(MOST).map(|name| crate::text::printable(name)).collect();
    let more = names.len().saturating_sub(MOST);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    if names.is_empty() { "nothing".to_owned() } else { listed.join(", ") + &more }
}

/// Downloads a file, or the rest of it. The file gets its name once its checksum is right.
fn download(client: &Client, cache: &RepoCache, name: &str, commit: &str) -> Result<PathBuf, String> {
    let here = cache.snapshot(commit).join(name);
    if is_there(&here) {
        return Ok(here);
    }
    let Metadata { commit: newest, etag } = client.metadata(name)?;
    if newest != commit {
        return Err("changed on the hub while it was downloaded; run it again".to_owned());
    }
    let blobs = cache.blobs();
    std::fs::create_dir_all(&blobs).map_err(in_cache)?;
    let (blob, part) = (blobs.join(&etag), blobs.join(format!("{etag}.part")));
    for _ in 0..TRIES {
        if !is_there(&blob) {
            match client.download(name, &part) {
                Ok(()) => {}
                // The whole file may be there already, without its name yet.
                Err(Failure::StalePart) if verify(&part, &etag).map_err(in_cache)? => {}
                Err(Failure::StalePart) => {
                    remove(&part).map_err(in_cache)?;
                    continue;
                }
                Err(Failure::Sentence(reason)) => return Err(reason),
            }
            if !verify(&part, &etag).map_err(in_cache)? {
                remove(&part).map_err(in_cache)?;
                continue;
            }
            refuse_impostors(client, name, &part)?;
            std::fs::rename(&part, &blob).map_err(in_cache)?;
        }
        return cache.link(commit, name, &etag).map_err(in_cache);
    }
    Err(format!("what the hub sent does not have the checksum that it announced, {TRIES} times; nothing was kept"))
}

/// Refuses a Git LFS pointer or a web page in place of a file: some mirrors serve pointers instead of large files.
fn refuse_impostors(client: &Client, name: &str, part: &Path) -> Result<(), String> {
    let mut start = Vec::new();
    File::open(part).and_then(|file| file.take(512).read_to_end(&mut start)).map_err(in_cache)?;
    // A model card may begin like a web page.
    let Some(impostor) = impostor(&start).filter(|_| !name.ends_with(".md")) else { return Ok(()) };
    remove(part).map_err(in_cache)?;
    let what = if impostor.contains("LFS") { "a Git LFS pointer" } else { "a web page" };
    let endpoint = client.endpoint();
    Err(format!(
        "cannot be fetched: {endpoint} serves {what} in its place; set HF_ENDPOINT to a hub that has the file itself"
    ))
}

/// Keeps other processes from downloading the same repository as long as the returned lock lives; `None` where the file
/// system has no locks, or is read only.
fn lock(blobs: &Path, id: &str) -> Option<File> {
    std::fs::create_dir_all(blobs).ok()?;
    let file = File::options().create(true).truncate(false).write(true).open(blobs.join("secateur.lock")).ok()?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            // The program goes on if nobody reads stderr.
            let _ = writeln!(std::io::stderr(), "{id}: waiting for another process that downloads it");
            file.lock().ok()?;
        }
        Err(TryLockError::Error(_)) => return None,
        Ok(()) => {}
    }
    Some(file)
}
