//! The parts of `config.json` that families share, read with serde and checked.

mod decoder;
mod generation;
mod named;
mod quantised;
mod rope;

use std::path::Path;

pub use decoder::DecoderConfig;
pub(super) use decoder::{Omitted, RawDecoder};
pub(super) use generation::{GENERATION_CONFIG, Generation};
pub(super) use named::{named_in_config, no_checkpoint};
pub(super) use quantised::refuse_quantised;
pub use rope::{Llama3Scaling, RopeConfig, RopeScaling};
use secateur_weights::parse_json;
use serde::de::DeserializeOwned;

use crate::{Error, files::read_text};

/// The file that describes a checkpoint.
pub(super) const CONFIG: &str = "config.json";
/// The files that may have the image processor's settings.
pub(super) const IMAGE_SETTINGS: [&str; 2] = ["preprocessor_config.json", "processor_config.json"];
/// A limit on the layers, above that of any model: a config that says more is wrong, and would be built before that shows.
pub(super) const MAX_LAYERS: usize = 1024;

pub(super) fn divides(part: usize, whole: usize) -> bool {
    part > 0 && whole.is_multiple_of(part)
}

pub(super) fn missing(path: &Path, field: &str) -> Error {
    Error::config(path, format!("the field `{field}` is missing"))
}

/// Reads a JSON file; the error names the field that is missing or wrong.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    from_json(path, &text_of_config(path)?)
}

/// The text of a checkpoint's configuration.
pub(super) fn text_of_config(path: &Path) -> Result<String, Error> {
    read_text(path, "the configuration cannot be read")
}

/// Reads a description from the JSON `text` of the file at `path`; several descriptions may be read from one text.
pub(super) fn from_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    parse_json(text).map_err(|reason| Error::config(path, reason))
}

/// Whether a number is one that a norm may add to a variance.
pub(super) fn is_epsilon(value: f64) -> bool {
    value.is_finite() && (0.0..1.0).contains(&value)
}
