//! The language model's part of a config.

use std::path::Path;

use serde::Deserialize;

use super::{
    MAX_LAYERS, divides,
    rope::{RawRope, Rope},
};
use crate::Error;

/// The language model's shape.
#[derive(Clone, Debug)]
pub struct LlamaConfig {
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; fewer than query heads with grouped attention.
    pub num_key_value_heads: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What positions are multiplied by: 1, or 1/factor with linear scaling.
    pub position_scale: f32,
    /// The longest sequence that the model was made for, scaling included.
    pub max_position_embeddings: usize,
}

impl LlamaConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// Llama's fields as they are written; what is `None` was omitted.
#[derive(Deserialize)]
pub(super) struct RawLlama {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawRope>,
    rope_parameters: Option<RawRope>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

impl RawLlama {
    /// `omitted` decides what a missing size means: the Llama-7B value in nested configs, an error in flat ones.
    pub(super) fn check(
        self,
        path: &Path,
        omitted: impl Fn(&str, usize) -> Result<usize, Error>,
    ) -> Result<LlamaConfig, Error> {
        let size = |name, value: Option<usize>, default| value.map_or_else(|| omitted(name, default), Ok);
        let heads = size("num_attention_heads", self.num_attention_heads, 32)?;
        let rope = Rope::check(self.rope_theta, self.rope_scaling, self.rope_parameters, path)?;
        let positions = self.max_position_embeddings.unwrap_or(2048);
        let config = LlamaConfig {
            vocab_size: size("vocab_size", self.vocab_size, 32_000)?,
            hidden_size: size("hidden_size", self.hidden_size, 4096)?,
            intermediate_size: size("intermediate_size", self.intermediate_size, 11_008)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers, 32)?,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(heads),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: rope.theta,
            position_scale: (1.0 / rope.factor) as f32,
            max_position_embeddings: (positions as f64 * rope.factor) as usize,
        };
        if config.hidden_size == 0
            || config.intermediate_size == 0
            || !divides(heads, config.hidden_size)
            || !divides(config.num_key_value_heads, heads)
            || !config.head_dim().is_multiple_of(2)
            || !(1..=MAX_LAYERS).contains(&config.num_hidden_layers)
        {
            return Err(Error::config(
                path,
                "hidden_size, heads and key/value heads do not divide, a size is 0, or there are no layers, or over 1,024",
            ));
        }
        if self.hidden_act.as_deref().is_some_and(|act| act != "silu")
            || self.attention_bias
            || self.tie_word_embeddings
        {
            return Err(Error::config(path, "expected Llama's silu, no attention_bias and no tie_word_embeddings"));
        }
        Ok(config)
    }
}
