//! The checkpoint that is inside the binary, for machines without another checkpoint.

use std::path::{Path, PathBuf};

use secateur_weights::cache_root;

use crate::{Error, files::write_file, hash::fnv1a};

macro_rules! files {
    ($($name:literal)*) => {
        &[$(($name, include_bytes!(concat!("../../weights/demo/", $name)))),*]
    };
}

/// The names and bytes of the checkpoint's files.
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

/// The folder of the built-in checkpoint. It is written below the user's cache, so that it is read like any other
/// checkpoint, and checked byte by byte if it is there already. It is never written to a folder that others can write
/// to: they could make links there, or another checkpoint.
///
/// # Errors
/// When the folder can be written nowhere.
pub fn unpack() -> Result<PathBuf, Error> {
    let hash = fnv1a(FILES.iter().flat_map(|(_, bytes)| bytes.iter()));
    let name = format!("demo-{hash:016x}");
    let places = user_cache().into_iter().map(|cache| cache.join("secateur")).chain([cache_root().join("secateur")]);
    let mut first = None;
    for place in places {
        match unpack_to(&place.join(&name)) {
            Ok(folder) => return Ok(folder),
            Err(error) => first = first.or(Some(error)),
        }
    }
    // If the user has no cache, the checkpoint goes to a new folder that nobody else has made.
    let random = std::env::temp_dir().join(format!("secateur-{name}-{:016x}", rand::random::<u64>()));
    unpack_to(&random).map_err(|error| first.unwrap_or(error))
}

/// The folder of the user's caches, where the platform has it.
fn user_cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let in_home = |below: &str| std::env::home_dir().map(|home| home.join(below));
    variable("XDG_CACHE_HOME").or_else(|| match std::env::consts::OS {
        "macos" => in_home("Library/Caches"),
        "windows" => variable("LOCALAPPDATA").or_else(|| in_home("AppData/Local")),
        _ => in_home(".cache"),
    })
}

fn unpack_to(folder: &Path) -> Result<PathBuf, Error> {
    const ACTION: &str = "the built-in checkpoint cannot be unpacked here";
    make_private(folder).map_err(Error::io(folder, ACTION))?;
    for (name, bytes) in FILES {
        let path = folder.join(name);
        // A link is refused, whatever it leads to: it may be another file of the user.
        let is_file = path.symlink_metadata().is_ok_and(|file| file.is_file());
        if is_file && std::fs::read(&path).is_ok_and(|there| there == *bytes) {
            continue;
        }
        let parent = path.parent().unwrap_or(folder);
        make_private(parent).map_err(Error::io(parent, ACTION))?;
        if path.symlink_metadata().is_ok_and(|there| !there.is_file()) {
            let taken = std::io::Error::other("something else is in its place");
            return Err(Error::io(&path, ACTION)(taken));
        }
        write_file(&path, bytes)?;
    }
    Ok(folder.to_owned())
}

/// Makes a folder that nobody else can write to, or checks that it is one.
fn make_private(folder: &Path) -> std::io::Result<()> {
    if let Some(parent) = folder.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match private_folders().create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_private(folder),
        made => made,
    }
}

#[cfg(unix)]
fn private_folders() -> std::fs::DirBuilder {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
}

#[cfg(not(unix))]
fn private_folders() -> std::fs::DirBuilder {
    std::fs::DirBuilder::new()
}

#[cfg(unix)]
fn check_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let there = folder.symlink_metadata()?;
    // A file that this process makes has the owner of the process.
    let probe = folder.join(format!(".{:016x}", rand::random::<u64>()));
    let own = there.is_dir().then(|| {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).open(&probe);
        let owner = made.and_then(|file| Ok(file.metadata()?.uid()));
        let _ = std::fs::remove_file(&probe);
        owner
    });
    match own {
        Some(Ok(owner)) if owner == there.uid() && there.mode() & 0o022 == 0 => Ok(()),
        Some(Err(error)) if there.mode() & 0o022 == 0 && error.kind() != std::io::ErrorKind::PermissionDenied => {
            Err(error)
        }
        _ => Err(std::io::Error::other("the folder is another user's, a link, or open to others for writing")),
    }
}

#[cfg(not(unix))]
fn check_private(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() { Ok(()) } else { Err(std::io::Error::other("something else is in its place")) }
}
