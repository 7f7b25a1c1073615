//! GGUF files: settings by name, and tensors of floats or of blocks. Numbers are little-endian; the layout is that of
//! versions 2 and 3.

mod header;
mod settings;
mod split;
mod tensors;
mod value;
mod write;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use header::Header;
pub use value::Value;
pub use write::{GgufTensor, GgufType, Setting, write_gguf};

use crate::{StoredTensor, WeightsError, mapped::Mapped};

/// The first bytes of every GGUF file.
pub(crate) const MAGIC: &[u8] = b"GGUF";

/// A GGUF file, or all parts of one: its settings, and its tensors, which are listed but not read.
pub struct Gguf {
    /// The file; the first one of several parts.
    pub path: PathBuf,
    /// The files of all parts.
    pub files: Vec<PathBuf>,
    /// The tensors by their names.
    pub tensors: BTreeMap<String, StoredTensor>,
    settings: BTreeMap<String, Value>,
}

impl Gguf {
    /// Reads the settings of a file, lists its tensors, and joins the parts of a split file.
    ///
    /// # Errors
    /// When the file is no GGUF, is damaged, holds something that is not read, or a part is missing.
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        let first = Self::open_one(path)?;
        let parts = split::parts(&first)?;
        parts.into_iter().try_fold(first, |mut whole, part| {
            let part = Self::open_one(&part)?;
            for (name, tensor) in part.tensors {
                if whole.tensors.insert(name.clone(), tensor).is_some() {
                    let reason = format!("tensor `{}` is in two parts", crate::printable(&name));
                    return Err(WeightsError::Damaged { path: part.path, reason });
                }
            }
            whole.files.push(part.path);
            Ok(whole)
        })
    }

    fn open_one(path: &Path) -> Result<Self, WeightsError> {
        let file = Mapped::open(path)?;
        let Header { settings, infos, end } = Header::read(path, file.bytes())?;
        let tensors = tensors::list(path, &file, &settings, infos, end)?;
        Ok(Self { path: path.to_owned(), files: vec![path.to_owned()], tensors, settings })
    }

    /// Whether a file begins as a GGUF file; a file that cannot be read does not.
    pub fn is_one(path: &Path) -> bool {
        use std::io::Read;
        let mut start = [0; MAGIC.len()];
        path.is_file()
            && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok()
            && start == MAGIC
    }
}
