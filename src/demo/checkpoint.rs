//! The checkpoint that is inside the binary, for machines that have no other.

use std::path::{Path, PathBuf};

use crate::{Error, eval::write_file, hash::fnv1a};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../weights/demo/", $name)))),*]
    };
}

/// Names and bytes.
const FILES: &[(&str, &[u8])] = files! {
    "config.json"
    "generation_config.json"
    "model.safetensors"
    "special_tokens_map.json"
    "tokenizer.model"
    "tokenizer_config.json"
    "clip-vit-demo-patch14-336/config.json"
    "clip-vit-demo-patch14-336/model.safetensors"
    "clip-vit-demo-patch14-336/preprocessor_config.json"
    "clip-vit-demo-patch14-336/tokenizer.json"
};

/// The folder of the built-in checkpoint: written below the system's folder for temporary files, so that it is read like
/// any other, and checked byte by byte if it is there already.
///
/// # Errors
/// When it cannot be written.
pub fn unpack() -> Result<PathBuf, Error> {
    let hash = fnv1a(FILES.iter().flat_map(|(_, bytes)| bytes.iter()));
    let folder = std::env::temp_dir().join(format!("secateur-demo-{hash:016x}"));
    for (name, bytes) in FILES {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let parent = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent)
            .map_err(Error::io(parent, "the built-in checkpoint cannot be unpacked here"))?;
        write_file(&path, bytes)?;
    }
    Ok(folder)
}
