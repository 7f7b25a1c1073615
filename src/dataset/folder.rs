//! A folder in LLaVA's layout, while it is filled.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{extension, inside};
use crate::Error;

/// The folder; it gets its name once it is whole.
pub struct Folder {
    whole: PathBuf,
    draft: PathBuf,
    values: BTreeMap<PathBuf, Value>,
    counts: BTreeMap<String, usize>,
}

impl Folder {
    /// Starts beside the place of the whole folder.
    pub(super) fn begin(whole: &Path) -> Result<Self, Error> {
        // Containers that share the folder may have the same process number.
        let draft = whole.with_added_extension(format!("part-{:016x}", rand::random::<u64>()));
        let fail = || Error::io(&draft, "the data set cannot be unpacked here");
        std::fs::create_dir_all(draft.parent().unwrap_or(&draft)).map_err(fail())?;
        std::fs::create_dir(&draft).map_err(fail())?;
        Ok(Self { whole: whole.to_owned(), draft, values: BTreeMap::new(), counts: BTreeMap::new() })
    }

    /// How often `key` was counted before.
    pub fn count(&mut self, key: &str) -> usize {
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    /// Writes a picture as `name`, and returns the name; without an extension it gets that of its format. A picture that is
    /// there already is not written again.
    ///
    /// # Errors
    /// When the name leads out of the folder, or it cannot be written.
    pub fn picture(&mut self, below: &str, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let plain = Path::new(name).extension().is_none();
        let name = if plain { format!("{name}.{}", extension(bytes)) } else { name.to_owned() };
        let path = self.place(&format!("{below}/{name}"))?;
        if !path.exists() {
            std::fs::write(&path, bytes).map_err(Error::io(&path, "cannot be written"))?;
        }
        Ok(name)
    }

    /// Adds a line to a text file.
    ///
    /// # Errors
    /// When the name leads out of the folder, or it cannot be written.
    pub fn line(&mut self, name: &str, line: &str) -> Result<(), Error> {
        let path = self.place(name)?;
        // Opened each time: there may be more files than a process may hold open.
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(Error::io(&path, "cannot be written"))
    }

    /// The value of a JSON file, to be changed in place; null at first.
    ///
    /// # Errors
    /// When the name leads out of the folder.
    pub fn json(&mut self, name: &str) -> Result<&mut Value, Error> {
        let path = self.place(name)?;
        Ok(self.values.entry(path).or_default())
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        for (path, value) in &self.values {
            std::fs::write(path, value.to_string()).map_err(Error::io(path, "cannot be written"))?;
        }
        match std::fs::rename(&self.draft, &self.whole) {
            Ok(()) => Ok(()),
            // Another process was faster; the drop removes ours.
            Err(_) if self.whole.is_dir() => Ok(()),
            Err(error) => Err(Error::io(&self.whole, "cannot be written")(error)),
        }
    }

    fn place(&self, name: &str) -> Result<PathBuf, Error> {
        if !inside(name) {
            return Err(Error::data(
                &self.whole,
                format!("the data set names a file `{name}`, which is no plain name"),
            ));
        }
        let path = self.draft.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(parent, "cannot be made"))?;
        }
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Gone already where everything went well.
        let _ = std::fs::remove_dir_all(&self.draft);
    }
}
