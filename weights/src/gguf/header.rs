//! The start of a GGUF file: magic, version, settings, and where tensors lie.

use std::{collections::BTreeMap, path::Path};

use super::{MAGIC, Value};
use crate::{WeightsError, printable, text::impostor};

/// The largest number of dimensions of a tensor.
const DIMENSIONS: u32 = 4;
/// The number of bytes of the shortest setting, and of the shortest place of a tensor.
const LEAST: [u64; 2] = [13, 24];
/// Starts of files that llama.cpp read before there was GGUF.
const OLD: [&[u8]; 5] = [b"lmgg", b"fmgg", b"tjgg", b"algg", b"GGLA"];

/// The content of the header.
pub(super) struct Header {
    pub(super) settings: BTreeMap<String, Value>,
    pub(super) infos: Vec<Info>,
    /// The place of the first byte after it.
    pub(super) end: usize,
}

/// The place of a tensor, as it is written.
pub(super) struct Info {
    pub(super) name: String,
    /// The dimensions, the innermost one first.
    pub(super) dimensions: Vec<u64>,
    pub(super) kind: u32,
    pub(super) offset: u64,
}

/// A fault of a file.
pub(super) enum Fault {
    /// The file is damaged or cut short.
    Damaged(String),
    /// The file is whole, and holds something that is not read.
    Unread(String),
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> WeightsError {
        let path = path.to_owned();
        match self {
            Self::Damaged(reason) => WeightsError::Damaged { path, reason },
            Self::Unread(reason) => WeightsError::Unsupported { path, reason },
        }
    }
}

/// A place in the bytes of a file.
pub(super) struct Cursor<'f> {
    bytes: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    /// The number of bytes after it.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `count` bytes, which are part of `what`.
    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'f [u8], Fault> {
        if count > self.left() {
            return Err(Fault::Damaged(format!(
                "the file ends in {what}, at byte {}: it is cut short",
                self.bytes.len()
            )));
        }
        self.at += count;
        Ok(&self.bytes[self.at - count..self.at])
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        Ok(u32::from_le_bytes(self.take(4, what)?.try_into().unwrap_or_default()))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        Ok(u64::from_le_bytes(self.take(8, what)?.try_into().unwrap_or_default()))
    }

    /// A text behind its length.
    pub(super) fn text(&mut self, what: &str) -> Result<String, Fault> {
        let length = self.u64(what)?;
        if length > self.left() as u64 {
            return Err(Fault::Damaged(format!(
                "{what} has the length {length}, which is too long: the file ends before"
            )));
        }
        let bytes = self.take(length as usize, what)?;
        // Some vocabularies have pieces that are no UTF-8.
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }
}

impl Header {
    /// Reads the header of the file with these bytes.
    pub(super) fn read(path: &Path, bytes: &[u8]) -> Result<Self, WeightsError> {
        if let Some(impostor) = impostor(&bytes[..bytes.len().min(512)]) {
            return Err(Fault::Unread(impostor.to_owned()).at(path));
        }
        Self::parse(bytes).map_err(|fault| fault.at(path))
    }

    fn parse(bytes: &[u8]) -> Result<Self, Fault> {
        let mut cursor = Cursor { bytes, at: 0 };
        let magic = cursor.take(MAGIC.len(), "its magic")?;
        if OLD.contains(&magic) {
            let reason = "an older file of llama.cpp (before August 2023), not a GGUF file; convert the model anew";
            return Err(Fault::Unread(reason.to_owned()));
        }
        if magic != MAGIC {
            return Err(Fault::Unread("not a GGUF file: its magic is another".to_owned()));
        }
        match cursor.u32("its version")? {
            2 | 3 => {}
            1 => {
                return Err(Fault::Unread(
                    "a GGUF file of version 1, which is not read; convert the model anew".to_owned(),
                ));
            }
            version if version.swap_bytes() <= 3 => {
                return Err(Fault::Unread("a big-endian GGUF file; give one in little-endian byte order".to_owned()));
            }
            version => return Err(Fault::Unread(format!("a GGUF file of version {version}; 2 and 3 are read"))),
        }
        let (tensors, keys) = (cursor.u64("the count of its tensors")?, cursor.u64("the count of its settings")?);
        for (count, least, what) in [(keys, LEAST[0], "keys of settings"), (tensors, LEAST[1], "tensors")] {
            if count.checked_mul(least).is_none_or(|bytes| bytes > cursor.left() as u64) {
                return Err(Fault::Damaged(format!("it counts {count} {what}, too many for it: the file ends before")));
            }
        }
        let mut settings = BTreeMap::new();
        for _ in 0..keys {
            let key = cursor.text("the name of a setting")?;
            let value = Value::read(&mut cursor)?;
            if settings.insert(key.clone(), value).is_some() {
                return Err(Fault::Damaged(format!("the setting `{}` is there twice", printable(&key))));
            }
        }
        let infos = (0..tensors).map(|_| Info::read(&mut cursor)).collect::<Result<_, _>>()?;
        Ok(Self { settings, infos, end: cursor.at })
    }
}

impl Info {
    fn read(cursor: &mut Cursor) -> Result<Self, Fault> {
        let name = cursor.text("the name of a tensor")?;
        let count = cursor.u32("the list of tensors")?;
        if count > DIMENSIONS {
            let name = printable(&name);
            return Err(Fault::Damaged(format!(
                "tensor `{name}` has {count} dimensions; up to {DIMENSIONS} are possible"
            )));
        }
        let dimensions = (0..count).map(|_| cursor.u64("the list of tensors")).collect::<Result<_, _>>()?;
        let (kind, offset) = (cursor.u32("the list of tensors")?, cursor.u64("the list of tensors")?);
        Ok(Self { name, dimensions, kind, offset })
    }
}
