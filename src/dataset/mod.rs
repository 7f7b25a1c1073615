//! Benchmarks from the hub: the data sets that lmms-eval uses, unpacked once into the layout of LLaVA's evaluation folders.
//!
//! Everything after unpacking is the same for both sources, so a benchmark asks, checks and scores in one way.

mod folder;
mod rows;

use std::path::{Path, PathBuf};

pub use folder::Folder;
pub use rows::Record;
use secateur_weights::{cache_root, cached_commit, find_data};

use crate::Error;

/// A benchmark's data set on the hub.
#[derive(Clone, Copy, Debug)]
pub struct DataSet {
    /// The id of the data set on the hub.
    pub id: &'static str,
    /// The starts of the names of its files, in the order in which they are read.
    pub files: &'static [&'static str],
    /// Writes one row into the folder; called for every row of every file.
    pub unpack: fn(&Record, &mut Folder) -> Result<(), Error>,
}

/// The version of the layout of unpacked folders: folders of an earlier version are not read any more.
const LAYOUT: u32 = 2;

/// The folder of the benchmark `name`, fetched and unpacked if it is not there. `check` is given the unpacked folder
/// before the folder gets its name.
///
/// # Errors
/// When the hub has no such files or does not answer, a row lacks a column or has a wrong value, or `check` refuses.
/// Nothing half-unpacked is left under the folder's name.
pub fn fetch(name: &str, set: DataSet, check: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
    let place = |commit: &str| {
        let short: String = commit.chars().take(12).collect();
        cache_root().join("secateur").join(format!("{name}-{short}-{LAYOUT}"))
    };
    if let Some(there) = cached_commit(set.id).map(|commit| place(&commit)).filter(|folder| folder.is_dir()) {
        return Ok(there);
    }
    let mut paths = Vec::new();
    for start in set.files {
        paths.extend(find_data(set.id, &|file| file.starts_with(start) && file.ends_with(".parquet"))?);
    }
    let whole = place(&cached_commit(set.id).unwrap_or_default());
    let Some(mut folder) = Folder::begin(&whole)? else { return Ok(whole) };
    let mut rows = 0;
    for path in &paths {
        for record in rows::read(path)? {
            (set.unpack)(&record?, &mut folder)?;
            rows += 1;
        }
    }
    if rows == 0 {
        let path = paths.first().map_or(&whole, |path| path);
        return Err(Error::data(path, format!("the data set {} has no rows; nothing was unpacked", set.id)));
    }
    folder.finish(check)?;
    Ok(whole)
}

/// The extension for the format that an image's first bytes show.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [0x89, b'P', b'N', b'G', ..] => "png",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        [b'G', b'I', b'F', ..] => "gif",
        _ => "jpg",
    }
}

/// Whether a name stays inside its folder.
fn inside(name: &str) -> bool {
    let path = Path::new(name);
    !name.is_empty() && path.components().all(|part| matches!(part, std::path::Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["a.png", "code_reasoning/0020.png"] {
            assert!(inside(name), "{name}");
        }
        for name in ["", "/etc/passwd", "../a", "a/../../b", "./a"] {
            assert!(!inside(name), "{name}");
        }
    }
}
