//! `config.json` of both checkpoint layouts, read with serde and turned into one checked description.

mod clip_text;
mod layouts;
mod llama;
mod quantised;
mod rope;
mod signs;
mod vision;

use std::path::Path;

pub use clip_text::ClipTextConfig;
pub(super) use layouts::{HfConfig, OriginalConfig};
pub use llama::LlamaConfig;
pub(super) use quantised::refuse_quantised;
use secateur_weights::parse_json;
use serde::de::DeserializeOwned;
pub use signs::Layout;
pub(super) use signs::Signs;
pub use vision::ClipVisionConfig;

use crate::{Error, files::read_text, image::Aspect, merge::Merge, text::Template};

/// All that the networks and the prompt need to know of a checkpoint.
#[derive(Clone, Debug)]
pub struct LlavaConfig {
    /// The vision tower.
    pub vision: ClipVisionConfig,
    /// The tower for videos, where there is one: Video-LLaVA.
    pub video: Option<ClipVisionConfig>,
    /// The language model.
    pub text: LlamaConfig,
    /// How many of the tower's layers run before the features are read.
    pub read_layers: usize,
    /// How pictures are cut.
    pub pictures: Pictures,
}

impl LlavaConfig {
    /// The template of its conversations.
    pub fn template(&self) -> Template {
        if self.video.is_some() { Template::VideoLlava } else { Template::VicunaV1 }
    }

    /// Frames that are taken from a video; `None` for a model that sees pictures only.
    pub fn frames(&self) -> Option<usize> {
        self.video.as_ref().map(|video| video.num_frames)
    }
}

/// How a checkpoint was trained to see pictures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pictures {
    /// LLaVA-1.5: one crop.
    Single(Aspect),
    /// LLaVA-NeXT: the whole picture and tiles of it.
    AnyRes {
        /// Width and height of the resolutions to choose from.
        resolutions: Vec<(usize, usize)>,
        /// How the crops become one sequence.
        merge: Merge,
    },
}

/// More layers than any model has: a config that says more is wrong, and would be built before that shows.
const MAX_LAYERS: usize = 1024;

fn divides(part: usize, whole: usize) -> bool {
    part > 0 && whole.is_multiple_of(part)
}

fn missing(path: &Path, field: &str) -> Error {
    Error::config(path, format!("the field `{field}` is missing"))
}

/// Reads a JSON file; the error names the field that is missing or wrong.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    from_json(path, &text_of_config(path)?)
}

/// The text of a checkpoint's configuration.
fn text_of_config(path: &Path) -> Result<String, Error> {
    read_text(path, "the configuration cannot be read")
}

/// What such a text describes; several descriptions may be read from one.
fn from_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Error> {
    parse_json(text).map_err(|reason| Error::config(path, reason))
}

/// Whether a number is one that a norm may add to a variance.
fn is_epsilon(value: f64) -> bool {
    value.is_finite() && (0.0..1.0).contains(&value)
}
