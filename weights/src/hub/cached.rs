//! Files in the cache, and files that are missing there.

use std::path::{Path, PathBuf};

use super::{Kind, cache::RepoCache};

/// Whether a file of a snapshot is there: a link may lead to contents that someone removed.
pub(super) fn is_there(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file())
}

/// The files that `choose` picks from a data set's snapshot in the cache.
///
/// # Errors
/// When a file is missing. The error names it, or is `None` if nothing of the data set is there.
pub(super) fn data_set(id: &str, choose: &dyn Fn(&[String]) -> Vec<String>) -> Result<Vec<PathBuf>, Option<String>> {
    let cache = RepoCache::new(Kind::DataSet, id);
    let folder = cache.snapshot(&cache.commit().ok_or(None)?);
    let mut names = Vec::new();
    let mut folders = vec![folder.clone()];
    while let Some(inner) = folders.pop() {
        for path in std::fs::read_dir(inner).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else if let Some(name) = path.strip_prefix(&folder).ok().and_then(Path::to_str) {
                names.push(name.replace('\\', "/"));
            }
        }
    }
    names.sort();
    let chosen = choose(&names);
    let missing = chosen.iter().find(|name| !is_there(&folder.join(name))).cloned().or_else(|| missing_part(&chosen));
    match missing {
        _ if chosen.is_empty() => Err(Some("the files that are read".to_owned())),
        Some(name) => Err(Some(name)),
        None => Ok(chosen.iter().map(|name| folder.join(name)).collect()),
    }
}

/// The first missing file of a numbered set, `…-00000-of-00003.parquet`; `None` if all sets are whole.
fn missing_part(names: &[String]) -> Option<String> {
    names.iter().find_map(|name| {
        let (start, end) = name.rsplit_once("-of-")?;
        let (start, own) = start.rsplit_once('-')?;
        let count = &end[..end.find(|c: char| !c.is_ascii_digit()).unwrap_or(end.len())];
        let width = own.len();
        // A hash of its own may follow in each name.
        let part = |i| format!("{start}-{i:0width$}-of-{count}");
        let is_missing = |part: &String| !names.iter().any(|name| name.starts_with(part));
        (0..count.parse::<usize>().ok()?.min(100_000)).map(part).find(is_missing)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_are_missing_are_missed() {
        let missing = |names: &[&str]| missing_part(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(missing(&["data/test.parquet"]), None);
        assert_eq!(missing(&["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]), None);
        assert_eq!(missing(&["data/test-00001-of-00002.parquet"]).as_deref(), Some("data/test-00000-of-00002"));
        let hashed = ["data/test-00000-of-00002-a25d.parquet", "data/test-00001-of-00002-77fe.parquet"];
        assert_eq!(missing(&hashed), None);
        assert_eq!(missing(&hashed[..1]).as_deref(), Some("data/test-00001-of-00002"));
        assert!(missing(&[hashed[0], hashed[1], "data/val-00000-of-00003.parquet"]).is_some());
    }
}
