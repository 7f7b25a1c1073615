//! A language model and the image encoder that belongs to it, each in a GGUF file.

use std::path::{Path, PathBuf};

use secateur_weights::{Gguf, find_gguf, printable};

use crate::Error;

/// The word that names of image encoders have.
const MMPROJ: &str = "mmproj";

/// The two files of a model in GGUF.
pub struct Pair {
    /// The language model.
    pub decoder: Gguf,
    /// The image encoder and the projector (`mmproj`).
    pub mmproj: Gguf,
}

/// Whether `model` names a GGUF file, here or on the hub.
pub fn is_gguf(model: &str) -> bool {
    let path = Path::new(model);
    !path.is_dir() && (model.to_lowercase().ends_with(".gguf") || Gguf::is_one(path))
}

impl Pair {
    /// Opens the language model `model` and the image encoder `mmproj`: paths, or `owner/name:FILE.gguf` on the hub. Without `mmproj`, the only
    /// file of that name beside the model is taken.
    ///
    /// # Errors
    /// When a file is not there, is damaged, or is of another kind.
    pub(super) fn open(model: &str, mmproj: Option<&str>) -> Result<Self, Error> {
        let decoder = Gguf::open(&find_gguf(model)?)?;
        let kind = architecture(&decoder)?;
        if kind == "clip" {
            let reason = "an image encoder (mmproj, architecture clip), given as the model: give the language model as --model, and this as --mmproj";
            return Err(Error::config(&decoder.path, reason));
        }
        let path = match mmproj {
            Some(mmproj) => find_gguf(mmproj)?,
            None => beside(&decoder.path)?,
        };
        let mmproj = Gguf::open(&path)?;
        let kind = architecture(&mmproj)?;
        if kind != "clip" {
            let kind = printable(&kind);
            let reason =
                format!("architecture {kind}, given as --mmproj: an image encoder (architecture clip) is expected");
            return Err(Error::config(&path, reason));
        }
        Ok(Self { decoder, mmproj })
    }

    /// The files of both, in the order in which checksums are made.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        [&self.decoder.files[..], &self.mmproj.files].concat()
    }
}

/// The architecture that a file names.
fn architecture(file: &Gguf) -> Result<String, Error> {
    const KEY: &str = "general.architecture";
    Ok(file.text(KEY)?.ok_or_else(|| file.missing(KEY))?.to_owned())
}

/// The only image encoder in the folder of `model`.
fn beside(model: &Path) -> Result<PathBuf, Error> {
    let folder = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder, "the image encoder cannot be looked for"))?;
    let is_encoder = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        name.contains(MMPROJ) && name.ends_with(".gguf")
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_encoder).collect();
    found.sort();
    match &found[..] {
        [one] => Ok(one.clone()),
        [] => Err(Error::config(model, "a language model needs its image encoder: give it as --mmproj FILE.gguf")),
        several => {
            let names: Vec<String> =
                several.iter().map(|path| printable(&path.file_name().unwrap_or_default().to_string_lossy())).collect();
            let reason = format!(
                "there are several image encoders beside it ({}): give one as --mmproj FILE.gguf",
                names.join(", ")
            );
            Err(Error::config(model, reason))
        }
    }
}
