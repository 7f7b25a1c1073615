//! A folder in LLaVA's layout that is being filled.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use image::guess_format;
use serde_json::Value;

use super::{extension, inside};
use crate::Error;

/// A folder that is being filled; it gets its name once it is whole.
pub struct Folder {
    whole: PathBuf,
    draft: PathBuf,
    /// The lock, held as long as the draft exists.
    _lock: File,
    values: BTreeMap<PathBuf, Value>,
    counts: BTreeMap<String, usize>,
}

impl Folder {
    /// Starts a draft beside the place of the whole folder; `None` if another process made the folder meanwhile.
    pub(super) fn begin(whole: &Path) -> Result<Option<Self>, Error> {
        let draft = whole.with_added_extension("part");
        let fail = || Error::io(&draft, "the data set cannot be unpacked here");
        std::fs::create_dir_all(draft.parent().unwrap_or(&draft)).map_err(fail())?;
        let place = whole.with_added_extension("lock");
        let lock = File::create(&place).map_err(Error::io(&place, "cannot be made"))?;
        // This waits for another process that unpacks the data set, where the file system has locks.
        let _ = lock.lock();
        if whole.is_dir() {
            return Ok(None);
        }
        // The draft of a process that was stopped can have gigabytes.
        match std::fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(fail()(error)),
            _ => std::fs::create_dir(&draft).map_err(fail())?,
        }
        Ok(Some(Self { whole: whole.to_owned(), draft, _lock: lock, values: BTreeMap::new(), counts: BTreeMap::new() }))
    }

    /// Counts `key`, and returns how often it was counted before.
    pub fn count(&mut self, key: &str) -> usize {
        let count = self.counts.entry(key.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    /// Writes an image as `name`, and returns the name; a name without an extension gets that of the image's format. An
    /// image that is there already is not written again.
    ///
    /// # Errors
    /// When the name leads out of the folder, the bytes begin like no image, or the file cannot be written.
    pub fn image(&mut self, below: &str, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let plain = Path::new(name).extension().is_none();
        let name = self.checked(if plain { format!("{name}.{}", extension(bytes)) } else { name.to_owned() })?;
        let path = self.place(&format!("{below}/{name}"))?;
        if guess_format(bytes).is_err() {
            let name = secateur_weights::printable(&name);
            return Err(Error::data(&self.whole, format!("what the data set has as the image `{name}` is none")));
        }
        if !path.exists() {
            std::fs::write(&path, bytes).map_err(Error::io(&path, "cannot be written"))?;
        }
        Ok(name)
    }

    /// Adds a line to a text file.
    ///
    /// # Errors
    /// When the name leads out of the folder, or the file cannot be written.
    pub fn line(&mut self, name: &str, line: &str) -> Result<(), Error> {
        let path = self.place(name)?;
        // The file is opened each time: there may be more files than a process may hold open.
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(Error::io(&path, "cannot be written"))
    }

    /// The value of a JSON file, to be changed in place; it is null at first.
    ///
    /// # Errors
    /// When the name leads out of the folder.
    pub fn json(&mut self, name: &str) -> Result<&mut Value, Error> {
        let path = self.place(name)?;
        Ok(self.values.entry(path).or_default())
    }

    /// Checks that a file's name stays inside the folder, and returns it for the files that refer to it.
    ///
    /// # Errors
    /// When the name leads out of the folder.
    pub fn checked(&self, name: String) -> Result<String, Error> {
        if inside(&name) { Ok(name) } else { Err(self.outside(&name)) }
    }

    fn outside(&self, name: &str) -> Error {
        let name = secateur_weights::printable(name);
        Error::data(&self.whole, format!("the data set names a file `{name}`, which is no plain name"))
    }

    /// Gives the folder its name, once `check` finds nothing wrong with its files.
    pub(super) fn finish(self, check: impl FnOnce(&Path) -> Result<(), Error>) -> Result<(), Error> {
        for (path, value) in &self.values {
            std::fs::write(path, value.to_string()).map_err(Error::io(path, "cannot be written"))?;
        }
        check(&self.draft)?;
        std::fs::rename(&self.draft, &self.whole).map_err(Error::io(&self.whole, "cannot be written"))
    }

    fn place(&self, name: &str) -> Result<PathBuf, Error> {
        if !inside(name) {
            return Err(self.outside(name));
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
        // The draft is gone already where everything went well.
        let _ = std::fs::remove_dir_all(&self.draft);
    }
}
