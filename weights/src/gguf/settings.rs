//! Settings by name, with errors that name the setting, what was found and what is expected.

use super::{Gguf, Value};
use crate::{WeightsError, printable};

impl Gguf {
    /// A setting; `None` if it is not there.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        self.settings.get(key)
    }

    /// The error of a setting that is not there.
    pub fn missing(&self, key: &str) -> WeightsError {
        WeightsError::Unsupported { path: self.path.clone(), reason: format!("the setting `{key}` is missing") }
    }

    fn unexpected(&self, key: &str, found: &Value, expected: &str) -> WeightsError {
        let found = match found {
            Value::Text(text) => format!("the text `{}`", printable(text)),
            Value::Int(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        let reason = format!("the setting `{key}` is {found}; {expected} is expected");
        WeightsError::Unsupported { path: self.path.clone(), reason }
    }

    /// A whole number from 0 on.
    ///
    /// # Errors
    /// When the setting is of another type.
    pub fn count(&self, key: &str) -> Result<Option<usize>, WeightsError> {
        let Some(value) = self.setting(key) else { return Ok(None) };
        let count = if let Value::Int(number) = value { usize::try_from(*number).ok() } else { None };
        count.map(Some).ok_or_else(|| self.unexpected(key, value, "a whole number from 0 on"))
    }

    /// A number.
    ///
    /// # Errors
    /// When the setting is of another type.
    pub fn number(&self, key: &str) -> Result<Option<f64>, WeightsError> {
        match self.setting(key) {
            None => Ok(None),
            Some(Value::Float(number)) => Ok(Some(*number)),
            Some(Value::Int(number)) => Ok(Some(*number as f64)),
            Some(other) => Err(self.unexpected(key, other, "a number")),
        }
    }

    /// A text.
    ///
    /// # Errors
    /// When the setting is of another type.
    pub fn text(&self, key: &str) -> Result<Option<&str>, WeightsError> {
        match self.setting(key) {
            None => Ok(None),
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(other) => Err(self.unexpected(key, other, "a text")),
        }
    }

    /// Yes or no.
    ///
    /// # Errors
    /// When the setting is of another type.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, WeightsError> {
        match self.setting(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(self.unexpected(key, other, "true or false")),
        }
    }

    /// A list whose every value `of` understands; `expected` says what the list is of.
    ///
    /// # Errors
    /// When the setting is no list, or a value is of another type.
    pub fn list<'g, T>(
        &'g self,
        key: &str,
        expected: &str,
        of: impl Fn(&'g Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, WeightsError> {
        let Some(value) = self.setting(key) else { return Ok(None) };
        let Value::List(list) = value else { return Err(self.unexpected(key, value, expected)) };
        let strange = || list.iter().find(|value| of(value).is_none()).unwrap_or(value);
        let found: Option<Vec<T>> = list.iter().map(&of).collect();
        found.map(Some).ok_or_else(|| self.unexpected(key, strange(), expected))
    }
}
