//! The text side of a CLIP config.

use std::path::Path;

use serde::Deserialize;

use super::ClipVisionConfig;
use crate::{
    Error,
    model::config::{MAX_LAYERS, divides, is_epsilon, read_json},
    text::Pooling,
};

/// The text tower's shape, and the width of the space that both towers share.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Number of rows of the embedding.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of attention heads.
    pub num_attention_heads: usize,
    /// Number of tokens that the text tower reads at once.
    pub max_position_embeddings: usize,
    /// Epsilon added to the variance in norms.
    pub layer_norm_eps: f64,
    /// Width of the joint space.
    pub projection_dim: usize,
    eos_token_id: u32,
    hidden_act: String,
}

/// transformers' `CLIPTextConfig` defaults, but for the end token, which is 2 in every config of OpenAI's checkpoints.
impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49_408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            layer_norm_eps: 1e-5,
            projection_dim: 512,
            eos_token_id: 2,
            hidden_act: "quick_gelu".to_owned(),
        }
    }
}

#[derive(Deserialize)]
struct RawClip {
    text_config: ClipTextConfig,
    vision_config: ClipVisionConfig,
    projection_dim: Option<usize>,
}

impl ClipTextConfig {
    /// Reads a CLIP checkpoint's `config.json`, whose vision side must be as wide as `vision`.
    pub(in crate::model) fn read(path: &Path, vision: &ClipVisionConfig) -> Result<Self, Error> {
        let raw: RawClip = read_json(path)?;
        let mut text = raw.text_config;
        text.projection_dim = raw.projection_dim.unwrap_or(text.projection_dim);
        let sound = divides(text.num_attention_heads, text.hidden_size)
            && (1..=MAX_LAYERS).contains(&text.num_hidden_layers)
            && (1..=1 << 16).contains(&text.max_position_embeddings)
            && text.projection_dim > 0;
        if !is_epsilon(text.layer_norm_eps) {
            let reason =
                format!("text_config.layer_norm_eps is {:e}; a small number from 0 is expected", text.layer_norm_eps);
            return Err(Error::config(path, reason));
        }
        if !sound || text.hidden_act != "quick_gelu" {
            let reason = "the text side's sizes do not divide into heads, or its activation is not quick_gelu";
            return Err(Error::config(path, reason));
        }
        if raw.vision_config.hidden_size != vision.hidden_size {
            let (found, expected) = (raw.vision_config.hidden_size, vision.hidden_size);
            let reason = format!("its vision side is {found} wide, the model's tower {expected}; --clip names another");
            return Err(Error::config(path, reason));
        }
        Ok(text)
    }

    /// The rule that picks the token that stands for a text.
    pub fn pooling(&self) -> Pooling {
        if self.eos_token_id == 2 { Pooling::LargestId } else { Pooling::End(self.eos_token_id) }
    }
}
