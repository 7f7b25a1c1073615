//! The keys of a server.

use std::{fmt, path::Path};

use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use crate::{Error, files::read_text};

/// Keys of which a request must have one. They are kept as checksums, and never printed.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// The keys of a text, one a line; empty lines and those that begin with `#` are none.
    pub fn new(text: &str) -> Self {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|key| Sha256::digest(key).into()).collect())
    }

    /// The keys of a file, one a line.
    ///
    /// # Errors
    /// When the file cannot be read, or there is no key in it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let keys = Self::new(&read_text(path, "the file with keys cannot be read")?);
        if keys.is_empty() {
            return Err(Error::data(path, "there is no key in it; it has one a line"));
        }
        Ok(keys)
    }

    /// These keys and those of `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Whether there is no key, so that everybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with this `Authorization` may ask. The time does not tell how much of a key is right, nor which key it is.
    pub(super) fn permit(&self, authorization: Option<&[u8]>) -> bool {
        let given = authorization.and_then(|value| value.split_at_checked(7));
        let key = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer ")).map(|(_, key)| key.trim_ascii());
        let sum: [u8; 32] = Sha256::digest(key.unwrap_or_default()).into();
        let known = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&sum));
        self.is_empty() || key.is_some() && bool::from(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_are_let_in() {
        let keys = Keys::new("first\n# a comment\n\n  second  \n");
        for right in ["Bearer first", "bearer second", "Bearer  second "] {
            assert!(keys.permit(Some(right.as_bytes())), "{right}");
        }
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer # a comment", "Basic first", "first", "Bearer firs", "Bearer firstx"]
        {
            assert!(!keys.permit(Some(wrong.as_bytes())), "{wrong}");
        }
        assert!(!keys.permit(None));
        assert!(Keys::default().permit(None));
        assert_eq!(format!("{keys:?}"), "Keys(2)");
    }
}
