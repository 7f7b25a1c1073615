//! The vision tower's part of a config.

use std::path::Path;

use serde::Deserialize;

use crate::{
    Error,
    image::Grid,
    model::config::{MAX_LAYERS, divides, is_epsilon},
};

/// A limit on the pixels a side, above that of any tower.
const MAX_SIDE: usize = 16_384;
/// A limit on the width of a layer, above that of any tower.
const MAX_WIDTH: usize = 1 << 20;
/// A limit on the frames, above that of any tower.
const MAX_FRAMES: usize = 1024;

/// The vision tower's shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers in the checkpoint.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Side of the image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Epsilon added to the variance in norms.
    pub layer_norm_eps: f64,
    pub(in crate::model) hidden_act: String,
    /// Whether the frames of a video attend to each other, patch by patch, in every layer, as in LanguageBind.
    pub add_time_attn: bool,
    /// Number of frames of a video in LanguageBind's tower; 1 in a tower for images.
    pub num_frames: usize,
}

/// transformers' `CLIPVisionConfig` defaults: fields that a config omits have these values.
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
    /// The patches of one crop.
    pub fn grid(&self) -> Grid {
        let side = self.image_size / self.patch_size;
        Grid::image(side, side)
    }

    /// Whether the MLP's activation is the one that OpenAI's CLIP has, `x · σ(1.702·x)`, and not the exact one.
    pub(in crate::model) fn quick_gelu(&self) -> bool {
        self.hidden_act == "quick_gelu"
    }

    pub(in crate::model) fn check(&self, path: &Path) -> Result<(), Error> {
        let &Self { hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, .. } = self;
        let &Self { image_size, patch_size, num_frames, layer_norm_eps, .. } = self;
        let reason = if hidden_size == 0
            || intermediate_size == 0
            || hidden_size > MAX_WIDTH
            || intermediate_size > MAX_WIDTH
        {
            format!(
                "hidden_size is {hidden_size} and intermediate_size {intermediate_size}; 1 to {MAX_WIDTH} are possible"
            )
        } else if !divides(num_attention_heads, hidden_size) {
            format!("hidden_size {hidden_size} does not divide into num_attention_heads {num_attention_heads}")
        } else if patch_size == 0 || image_size < patch_size || image_size > MAX_SIDE {
            format!("image_size {image_size} does not fit patch_size {patch_size}, or is above {MAX_SIDE}")
        } else if !(1..=MAX_LAYERS).contains(&num_hidden_layers) {
            format!("num_hidden_layers is {num_hidden_layers}; 1 to {MAX_LAYERS} are possible")
        } else if !(1..=MAX_FRAMES).contains(&num_frames) {
            format!("num_frames is {num_frames}; 1 to {MAX_FRAMES} are possible")
        } else if !is_epsilon(layer_norm_eps) {
            format!("layer_norm_eps is {layer_norm_eps}; a number from 0 on, and below 1, is possible")
        } else if !["quick_gelu", "gelu"].contains(&&self.hidden_act[..]) {
            format!("hidden_act is `{}`; quick_gelu and gelu are known", secateur_weights::printable(&self.hidden_act))
        } else {
            return Ok(());
        };
        Err(Error::config(path, format!("the vision tower's {reason}")))
    }
}
