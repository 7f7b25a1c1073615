//! Hugging Face's cache on disk, which its own tools read too.
//!
//! ```text
//! <cache>/models--owner--name/refs/main                        a commit
//!                            /snapshots/<commit>/config.json   a link to a blob
//!                            /blobs/<checksum>                 contents
//!                            /blobs/<checksum>.part            the beginning of a download that broke off
//! ```

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Kind;

/// The folder of the hub's files: `HF_HUB_CACHE`, else `hub` below [`cache_root`].
pub(super) fn cache() -> PathBuf {
    folder_in("HF_HUB_CACHE").unwrap_or_else(|| cache_root().join("hub"))
}

/// The folder that Hugging Face's tools take as home (`HF_HOME`, else below `XDG_CACHE_HOME` or `~/.cache`). Files that
/// are made from downloads may be kept there, too.
pub fn cache_root() -> PathBuf {
    let in_home = || std::env::home_dir().unwrap_or_default().join(".cache");
    folder_in("HF_HOME").unwrap_or_else(|| folder_in("XDG_CACHE_HOME").unwrap_or_else(in_home).join("huggingface"))
}

/// The folder that an environment variable names; `~` is the home, as in Python.
fn folder_in(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable).filter(|path| !path.is_empty())?);
    match path.strip_prefix("~") {
        Ok(rest) => Some(std::env::home_dir()?.join(rest)),
        Err(_) => Some(path),
    }
}

/// The token that `hf auth login` saved.
pub(super) fn saved_token() -> Option<String> {
    let path = std::env::var_os("HF_TOKEN_PATH").map_or_else(|| cache_root().join("token"), PathBuf::from);
    Some(std::fs::read_to_string(path).ok()?.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The part of the cache for one repository.
pub(super) struct RepoCache {
    path: PathBuf,
}

impl RepoCache {
    /// The part of the cache for the repository `id`, which need not be there yet.
    pub(super) fn new(kind: Kind, id: &str) -> Self {
        Self { path: cache().join(format!("{}--{}", kind.plural(), id.replace('/', "--"))) }
    }

    /// The folder of all contents.
    pub(super) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// The folder of a commit's files.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.path.join("snapshots").join(commit)
    }

    /// The newest commit when the hub was last asked.
    pub(super) fn commit(&self) -> Option<String> {
        let commit = std::fs::read_to_string(self.path.join("refs/main")).ok()?;
        // Other tools write this file, too: the check is that it names one folder.
        Some(commit.trim().to_owned()).filter(|commit| is_plain_name(commit) && !commit.contains('/'))
    }

    /// Whether anything of the repository is there.
    pub(super) fn is_known(&self) -> bool {
        self.path.join("refs/main").is_file()
    }

    /// Stores the newest commit.
    pub(super) fn set_commit(&self, commit: &str) -> io::Result<()> {
        let refs = self.path.join("refs");
        std::fs::create_dir_all(&refs)?;
        std::fs::write(refs.join("main"), commit)
    }

    /// Puts the blob `etag` into a commit's folder under `name`.
    pub(super) fn link(&self, commit: &str, name: &str, etag: &str) -> io::Result<PathBuf> {
        let path = self.snapshot(commit).join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        // The link leads up from snapshots/<commit>/ and from the folders in the name.
        let up = "../".repeat(2 + name.matches('/').count());
        remove(&path)?;
        match link(&format!("{up}blobs/{etag}"), &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                // The file system, or a Windows account, has no links.
                std::fs::rename(self.blobs().join(etag), &path).map_err(|_| error)?;
            }
            _ => {}
        }
        Ok(path)
    }
}

#[cfg(unix)]
fn link(target: &str, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn link(target: &str, path: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}

#[cfg(not(any(unix, windows)))]
fn link(_target: &str, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Removes a file that may be gone already: other processes remove it, too.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether `text` is a number in hexadecimal of one of these lengths.
pub(super) fn is_checksum(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a name from a hub stays inside the folder that it is put in, and shows on a terminal as it is.
pub(super) fn is_plain_name(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    name.split('/').all(plain) && !name.contains(['\\', ':']) && !name.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_checksums_that_lead_elsewhere_are_told() {
        for name in ["config.json", "data/test-00000-of-00001.parquet", "..a"] {
            assert!(is_plain_name(name), "{name}");
        }
        for name in ["", "/etc/passwd", "../a", "a/../b", "a//b", "a/", "./a", "a\\..\\b", "C:a", "a\u{1b}[2J"] {
            assert!(!is_plain_name(name), "{name}");
        }
        assert!(is_checksum(&"0aF".repeat(8).repeat(2)[..40], &[40, 64]));
        for text in ["", "../../../victim", "0a", &"g".repeat(40)] {
            assert!(!is_checksum(text, &[40, 64]), "{text}");
        }
    }
}
