//! What is in the cache, and whether it is sound.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{Kind, cache, cached_commit, checkpoint_files, verify::verify};

/// The mark beside a blob that nobody has checked yet.
pub(super) fn mark(blob: &Path) -> PathBuf {
    blob.with_added_extension("unverified")
}

/// Whether a file of a snapshot is there and has its checksum. If the process that downloaded it was killed before it could check that, it is checked now, and
/// what is damaged is removed; the link to it stays, so that it is missed.
pub(super) fn is_sound(pointer: &Path) -> io::Result<bool> {
    let Some(blob) = pointer.canonicalize().ok().filter(|blob| blob.is_file()) else { return Ok(false) };
    let mark = mark(&blob);
    if !mark.exists() {
        return Ok(true);
    }
    let name = blob.file_name().unwrap_or_default().to_string_lossy();
    let sound = verify(&blob, &name)?;
    if !sound {
        remove(&blob)?;
    }
    // In a cache that only others may write it is checked again the next time.
    let _ = remove(&mark);
    Ok(sound)
}

/// Removes a file that may be gone already: other processes do the same.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The name of a file in the folder of a snapshot that is read and not sound.
pub(super) fn unsound(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let mut read = checkpoint_files(&names);
    read.retain(|name| !is_sound(&folder.join(name)).unwrap_or(false));
    read.into_iter().next()
}

/// What `choose` picks of a data set's snapshot in the cache; `None` unless all of it is there and sound.
pub(super) fn data_set(id: &str, choose: &dyn Fn(&[String]) -> Vec<String>) -> Option<Vec<PathBuf>> {
    let folder = cache().repo(Kind::DataSet.repo(id)).pointer_path(&cached_commit(id)?);
    let mut names = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(inner) = folders.pop() {
        for path in std::fs::read_dir(inner).ok()?.flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let parts = path.strip_prefix(&folder).ok()?.components();
            let parts: Option<Vec<&str>> = parts.map(|part| part.as_os_str().to_str()).collect();
            names.push(parts?.join("/"));
        }
    }
    names.sort();
    let chosen = choose(&names);
    let paths: Vec<PathBuf> = chosen.iter().map(|name| folder.join(name)).collect();
    let whole =
        !paths.is_empty() && no_part_missing(&chosen) && paths.iter().all(|path| is_sound(path).unwrap_or(false));
    whole.then_some(paths)
}

/// Whether of every file that is one of several, `…-00000-of-00003….parquet`, all are among the names.
fn no_part_missing(names: &[String]) -> bool {
    names.iter().all(|name| {
        let parts = || {
            let (start, end) = name.rsplit_once("-of-")?;
            let (start, own) = start.rsplit_once('-')?;
            let count = &end[..end.find(|c: char| !c.is_ascii_digit()).unwrap_or(end.len())];
            let width = own.len();
            // A hash of its own may follow in each name.
            let is_there = |i| {
                let part = format!("{start}-{i:0width$}-of-{count}");
                names.iter().any(|name| name.starts_with(&part))
            };
            Some((0..count.parse::<usize>().ok()?).all(is_there))
        };
        parts().unwrap_or(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_missing_are_missed() {
        let whole = |names: &[&str]| no_part_missing(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert!(whole(&["data/test.parquet"]));
        assert!(whole(&["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]));
        assert!(!whole(&["data/test-00001-of-00002.parquet"]));
        let hashed = ["data/test-00000-of-00002-a25d.parquet", "data/test-00001-of-00002-77fe.parquet"];
        assert!(whole(&hashed));
        assert!(!whole(&hashed[..1]));
        assert!(!whole(&[hashed[0], hashed[1], "data/val-00000-of-00003.parquet"]));
    }
}
