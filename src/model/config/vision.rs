//! The vision tower's part of a config.

use std::path::Path;

use serde::Deserialize;

use super::{MAX_LAYERS, divides};
use crate::Error;

/// More pixels a side than any tower reads.
const MAX_SIDE: usize = 16_384;
/// More frames than any tower reads.
const MAX_FRAMES: usize = 1024;

/// The vision tower's shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers in the checkpoint.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    pub(in crate::model) hidden_act: String,
    /// LanguageBind: whether the frames of a video attend to each other, patch by patch, in every layer.
    pub add_time_attn: bool,
    /// LanguageBind: frames of a video; 1 in a tower for pictures.
    pub num_frames: usize,
}

/// transformers' `CLIPVisionConfig` defaults: what a config omits has these values.
impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            layer_norm_eps: 1e-5,
            hidden_act: "quick_gelu".to_owned(),
            add_time_attn: false,
            num_frames: 1,
        }
    }
}

impl ClipVisionConfig {
    /// Patches of one crop.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Whether the MLP's activation is the one that OpenAI's CLIP has, `x · σ(1.702·x)`, and not the exact one.
    pub(in crate::model) fn quick_gelu(&self) -> bool {
        self.hidden_act == "quick_gelu"
    }

    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let sound = self.patch_size > 0
            && self.hidden_size > 0
            && self.intermediate_size > 0
            && self.image_size >= self.patch_size
            && self.image_size <= MAX_SIDE
            && divides(self.num_attention_heads, self.hidden_size)
            && (1..=MAX_LAYERS).contains(&self.num_hidden_layers)
            && (1..=MAX_FRAMES).contains(&self.num_frames);
        match (sound, self.hidden_act.as_str()) {
            (true, "quick_gelu" | "gelu") => Ok(()),
            (true, other) => {
                Err(Error::config(path, format!("vision hidden_act `{other}`; quick_gelu and gelu are known")))
            }
            (false, _) => Err(Error::config(
                path,
                "the vision tower's sizes do not divide into heads and patches, or are out of all proportion",
            )),
        }
    }
}
