//! Checksums: the hub names a file's blob after its contents.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Whether a file's contents have the checksum in the name of its blob: SHA-256 for large files, Git's SHA-1 for small
/// ones. A name that is neither is not checked.
pub(super) fn verify(blob: &Path, name: &str) -> io::Result<bool> {
    let hex = name.chars().all(|c| c.is_ascii_hexdigit());
    let found = match name.len() {
        64 if hex => digest(Sha256::new(), blob)?,
        40 if hex => {
            let header = format!("blob {}\0", blob.metadata()?.len());
            digest(Sha1::new().chain_update(header), blob)?
        }
        _ => return Ok(true),
    };
    Ok(found == name.to_ascii_lowercase())
}

fn digest(mut state: impl Digest, path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => state.update(&buffer[..read]),
        }
    }
    Ok(state.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_must_have_the_checksum_of_their_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, contents: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, contents).unwrap();
            verify(&path, name).unwrap()
        };
        // These are from `printf hello | sha256sum` and `printf hello | git hash-object --stdin`.
        let (sha256, git) = (
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
        );
        assert!(write(sha256, "hello"));
        assert!(write(git, "hello"));
        assert!(!write(sha256, "hellO"));
        assert!(!write(git, "hellO"));
        assert!(write("no-checksum", "anything"));
    }
}
