//! The language model's part of a config.

use std::path::Path;

use serde::Deserialize;

use super::{
    MAX_LAYERS, divides, is_epsilon,
    rope::{RawRope, Rope},
};
use crate::Error;

/// More rows of an embedding than any model has.
const MAX_VOCABULARY: usize = 1 << 24;
/// Wider than any layer.
const MAX_WIDTH: usize = 1 << 20;
/// More positions than any model reads.
const MAX_POSITIONS: usize = 1 << 26;

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
    fn check_sizes(&self, path: &Path) -> Result<(), Error> {
        let &Self {
            hidden_size, intermediate_size, num_attention_heads, num_key_value_heads, num_hidden_layers, ..
        } = self;
        let reason = if hidden_size == 0 || intermediate_size == 0 {
            format!("hidden_size is {hidden_size} and intermediate_size {intermediate_size}; both are above 0")
        } else if !divides(num_attention_heads, hidden_size) {
            format!("hidden_size {hidden_size} does not divide into num_attention_heads {num_attention_heads}")
        } else if !divides(num_key_value_heads, num_attention_heads) {
            format!(
                "num_attention_heads {num_attention_heads} do not divide into num_key_value_heads {num_key_value_heads}"
            )
        } else if !self.head_dim().is_multiple_of(2) {
            format!(
                "a head is {} wide (hidden_size / num_attention_heads), which rotary positions cannot halve",
                self.head_dim()
            )
        } else if !(1..=MAX_LAYERS).contains(&num_hidden_layers) {
            format!("num_hidden_layers is {num_hidden_layers}; 1 to {MAX_LAYERS} are possible")
        } else if !(1..=MAX_VOCABULARY).contains(&self.vocab_size) {
            format!("vocab_size is {}; 1 to {MAX_VOCABULARY} are possible", self.vocab_size)
        } else if hidden_size > MAX_WIDTH || intermediate_size > MAX_WIDTH {
            format!(
                "hidden_size {hidden_size} or intermediate_size {intermediate_size} is above {MAX_WIDTH}, more than any model has"
            )
        } else if self.max_position_embeddings == 0 || self.max_position_embeddings > MAX_POSITIONS {
            format!("max_position_embeddings is {}; 1 to {MAX_POSITIONS} are possible", self.max_position_embeddings)
        } else if !is_epsilon(self.rms_norm_eps) {
            format!("rms_norm_eps is {}; a number from 0 on, and below 1, is possible", self.rms_norm_eps)
        } else {
            return Ok(());
        };
        Err(Error::config(path, reason))
    }

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
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    head_dim: Option<usize>,
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
        config.check_sizes(path)?;
        let refuse = |reason: String| Err(Error::config(path, reason));
        if let Some(act) = self.hidden_act.filter(|act| !["silu", "swish"].contains(&&act[..])) {
            return refuse(format!("hidden_act is `{}`; silu is known", secateur_weights::printable(&act)));
        }
        for (field, value) in [
            ("attention_bias", self.attention_bias),
            ("mlp_bias", self.mlp_bias),
            ("tie_word_embeddings", self.tie_word_embeddings),
        ] {
            if value == Some(true) {
                return refuse(format!("{field} is true; only false is known for a Llama"));
            }
        }
        if let Some(width) = self.head_dim.filter(|width| *width != config.head_dim()) {
            let expected = config.head_dim();
            return refuse(format!(
                "head_dim is {width}; only hidden_size / num_attention_heads, {expected}, is known"
            ));
        }
        Ok(config)
    }
}
