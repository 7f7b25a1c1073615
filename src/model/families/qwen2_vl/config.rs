//! The config of Qwen2-VL and Qwen2.5-VL, in its flat and in its nested form.

use std::path::Path;

use secateur_weights::printable;
use serde::Deserialize;

use crate::{
    Error,
    model::{
        DecoderConfig,
        config::{Omitted, RawDecoder, divides, from_json, missing, text_of_config},
    },
};

/// The epsilon of all norms of the tower, whatever the config says.
pub(super) const NORM_EPS: f64 = 1e-6;
/// A limit on the blocks of a tower, above that of any model.
const MAX_BLOCKS: usize = 1024;
/// A limit on widths and sides, above that of any model.
const MAX_WIDTH: usize = 1 << 16;

/// The generation of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Qwen2-VL.
    Qwen2,
    /// Qwen2.5-VL.
    Qwen2_5,
}

/// The shape of the vision tower.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct VisionConfig {
    pub(super) generation: Generation,
    pub(super) depth: usize,
    /// The width of a patch.
    pub(super) hidden: usize,
    /// The width inside the MLP.
    pub(super) inner: usize,
    pub(super) heads: usize,
    /// The side of a patch in pixels.
    pub(super) patch: usize,
    /// The number of frames that a patch covers.
    pub(super) frames: usize,
    /// The number of patches a side that become one token.
    pub(super) merge: usize,
    /// The side of an attention window in tokens; `None` where all blocks attend to the whole item.
    pub(super) window: Option<usize>,
    /// The blocks that attend to the whole item, beside windows.
    pub(super) full: Vec<usize>,
    /// The number of positions in a second of video; `None` where each slice of time is one position, however long.
    pub(super) tokens_per_second: Option<f64>,
}

impl VisionConfig {
    /// Refuses sizes that no model has; `path` is the file that they are from.
    ///
    /// # Errors
    /// When there are such.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        let &Self { depth, hidden, inner, heads, patch, frames, merge, .. } = self;
        let sizes = [hidden, inner, patch, frames, merge];
        if !(1..=MAX_BLOCKS).contains(&depth) || sizes.iter().any(|size| !(1..=MAX_WIDTH).contains(size)) {
            return refuse(format!("the tower has sizes that no model has: {depth} blocks, widths and sides {sizes:?}"));
        }
        if !divides(heads, hidden) || !(hidden / heads).is_multiple_of(4) {
            return refuse(format!("the tower's {heads} heads do not divide a width of {hidden} into rotary quarters"));
        }
        if self.window == Some(0) {
            return refuse("the tower's windows (window_size) are smaller than a token".to_owned());
        }
        // The cue is attention over the whole item.
        if !self.is_full(depth - 1) {
            return refuse(format!("the tower's last block attends in windows; blocks {:?} attend to the whole image, and the last is expected among them", self.full));
        }
        Ok(())
    }

    /// Whether a block attends to the whole item.
    pub(super) fn is_full(&self, block: usize) -> bool {
        self.window.is_none() || self.full.contains(&block)
    }
}

/// The fields of `vision_config` as they are written.
#[derive(Default, Deserialize)]
struct RawVision {
    depth: Option<usize>,
    embed_dim: Option<usize>,
    hidden_size: Option<usize>,
    out_hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    mlp_ratio: Option<f64>,
    num_heads: Option<usize>,
    in_channels: Option<usize>,
    patch_size: Option<usize>,
    spatial_merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    window_size: Option<usize>,
    fullatt_block_indexes: Option<Vec<usize>>,
    tokens_per_second: Option<f64>,
    hidden_act: Option<String>,
}

/// The fields that decide which parts are read.
#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    text_config: Option<serde_json::Value>,
    vision_config: Option<RawVision>,
}

/// The fields of the text's part that Llama has not.
#[derive(Default, Deserialize)]
struct RawWindow {
    use_sliding_window: Option<bool>,
}

/// The generation that a config's `model_type` names, if it is one of these.
pub(super) fn generation(model_type: Option<&str>) -> Option<Generation> {
    match model_type {
        Some("qwen2_vl") => Some(Generation::Qwen2),
        Some("qwen2_5_vl") => Some(Generation::Qwen2_5),
        _ => None,
    }
}

/// The shapes of the tower and of the decoder in the config at `path`.
///
/// # Errors
/// When a field is missing, or asks for something that is not known.
pub(super) fn read(path: &Path) -> Result<(VisionConfig, DecoderConfig), Error> {
    let text = text_of_config(path)?;
    let raw: RawConfig = from_json(path, &text)?;
    let generation = generation(raw.model_type.as_deref()).ok_or_else(|| missing(path, "model_type"))?;
    // Re-saved configs have the fields of the text in both places, of which transformers reads the inner one, and ties the head only where that says so.
    let (text, omitted) = match &raw.text_config {
        Some(inner) => (inner.to_string(), Omitted::Default),
        None => (text, Omitted::Refused),
    };
    let window: RawWindow = from_json(path, &text)?;
    if window.use_sliding_window == Some(true) {
        return Err(Error::config(path, "use_sliding_window is true; only false is known"));
    }
    let mut decoder = from_json::<RawDecoder>(path, &text)?.check(path, omitted)?;
    decoder.qkv_bias = true;
    if decoder.rope.sections.is_none() {
        return Err(missing(path, "rope_scaling.mrope_section"));
    }
    let vision = raw.vision_config.unwrap_or_default().check(generation, path)?;
    if let Some(width) = vision.1.filter(|width| *width != decoder.hidden_size) {
        let reason = format!("the tower's embeddings are {width} wide, and the decoder's hidden_size is {}", decoder.hidden_size);
        return Err(Error::config(path, reason));
    }
    Ok((vision.0, decoder))
}

impl RawVision {
    /// The checked shape, and the width of the embeddings that the merger makes, where the config says it.
    fn check(self, generation: Generation, path: &Path) -> Result<(VisionConfig, Option<usize>), Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        let (hidden, out, act) = match generation {
            Generation::Qwen2 => (self.embed_dim.unwrap_or(1280), self.hidden_size, "quick_gelu"),
            Generation::Qwen2_5 => (self.hidden_size.unwrap_or(3584), self.out_hidden_size, "silu"),
        };
        if let Some(found) = self.hidden_act.as_deref().filter(|found| *found != act) {
            return refuse(format!("vision_config.hidden_act is `{}`; {act} is known", printable(found)));
        }
        if let Some(channels) = self.in_channels.filter(|channels| *channels != 3) {
            return refuse(format!("vision_config.in_channels is {channels}; 3 is known"));
        }
        let inner = match generation {
            Generation::Qwen2 => (hidden as f64 * self.mlp_ratio.unwrap_or(4.0)) as usize,
            Generation::Qwen2_5 => self.intermediate_size.unwrap_or(3420),
        };
        let merge = self.spatial_merge_size.unwrap_or(2);
        let (patch, frames) = (self.patch_size.unwrap_or(14), self.temporal_patch_size.unwrap_or(2));
        let (depth, heads) = (self.depth.unwrap_or(32), self.num_heads.unwrap_or(16));
        let window = match generation {
            Generation::Qwen2 => None,
            Generation::Qwen2_5 => Some(self.window_size.unwrap_or(112) / patch.max(1) / merge.max(1)),
        };
        let seconds = self.tokens_per_second.unwrap_or(4.0);
        if !(seconds.is_finite() && (0.0..=1e4).contains(&seconds)) {
            return refuse(format!("vision_config.tokens_per_second is {seconds}; 0 to 10000 is possible"));
        }
        let full = self.fullatt_block_indexes.unwrap_or_else(|| vec![7, 15, 23, 31]);
        let tokens_per_second = matches!(generation, Generation::Qwen2_5).then_some(seconds);
        let config = VisionConfig { generation, depth, hidden, inner, heads, patch, frames, merge, window, full, tokens_per_second };
        config.check(path)?;
        Ok((config, out))
    }
}
