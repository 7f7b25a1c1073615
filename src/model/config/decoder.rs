//! The decoder's part of a config: Llama's, Mistral's and Qwen2's fields.

use std::path::Path;

use secateur_weights::printable;
use serde::Deserialize;

use super::{
    MAX_LAYERS, divides, is_epsilon,
    rope::{RawRope, RopeConfig},
};
use crate::Error;

/// A limit on the rows of an embedding, above that of any model.
const MAX_VOCABULARY: usize = 1 << 24;
/// A limit on the width of a layer, above that of any model.
const MAX_WIDTH: usize = 1 << 20;
/// A limit on the positions, above that of any model.
const MAX_POSITIONS: usize = 1 << 26;

/// The shape of a decoder (`LlamaForCausalLM`, `MistralForCausalLM`, `Qwen2ForCausalLM`).
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Number of rows of the embedding, padding included.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; fewer than query heads with grouped attention.
    pub num_key_value_heads: usize,
    /// Width of a head, mostly `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Epsilon added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// The rotary frequencies.
    pub rope: RopeConfig,
    /// The longest sequence that the model reads exactly: the length that it was made for, and no more than its attention's window.
    pub max_position_embeddings: usize,
    /// Whether the products to queries, keys and values have biases (`attention_bias`; always in Qwen2).
    pub qkv_bias: bool,
    /// Whether the product behind attention has a bias (`attention_bias`).
    pub o_bias: bool,
    /// Whether the products of the MLP have biases (`mlp_bias`).
    pub mlp_bias: bool,
    /// Whether the embedding is also the matrix before the logits (`tie_word_embeddings`).
    pub tied: bool,
}

/// LLaVA-1.5-7B's decoder, Vicuna-7B.
impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 32_000,
            hidden_size: 4096,
            intermediate_size: 11_008,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: 32,
            head_dim: 128,
            rms_norm_eps: 1e-5,
            rope: RopeConfig::default(),
            max_position_embeddings: 4096,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            tied: false,
        }
    }
}

impl DecoderConfig {
    /// Refuses sizes that no model has; `path` is the file that they are from.
    pub(in crate::model) fn check_sizes(&self, path: &Path) -> Result<(), Error> {
        let &Self {
            hidden_size,
            intermediate_size,
            num_attention_heads,
            num_key_value_heads,
            num_hidden_layers,
            head_dim,
            ..
        } = self;
        let reason = if hidden_size == 0 || intermediate_size == 0 {
            format!("hidden_size is {hidden_size} and intermediate_size {intermediate_size}; both are above 0")
        } else if !divides(num_key_value_heads, num_attention_heads) {
            format!(
                "num_attention_heads {num_attention_heads} do not divide into num_key_value_heads {num_key_value_heads}"
            )
        } else if head_dim == 0 || !head_dim.is_multiple_of(2) {
            format!("a head is {head_dim} wide (head_dim), which rotary positions cannot halve")
        } else if let Some(sections) =
            self.rope.sections.filter(|sections| sections.iter().sum::<usize>() != head_dim / 2)
        {
            format!("mrope_section {sections:?} does not add up to half of a head, which is {head_dim} wide (head_dim)")
        } else if !(1..=MAX_LAYERS).contains(&num_hidden_layers) {
            format!("num_hidden_layers is {num_hidden_layers}; 1 to {MAX_LAYERS} are possible")
        } else if !(1..=MAX_VOCABULARY).contains(&self.vocab_size) {
            format!("vocab_size is {}; 1 to {MAX_VOCABULARY} are possible", self.vocab_size)
        } else if hidden_size > MAX_WIDTH
            || intermediate_size > MAX_WIDTH
            || num_attention_heads.saturating_mul(head_dim) > MAX_WIDTH
        {
            format!(
                "hidden_size {hidden_size}, intermediate_size {intermediate_size} or {num_attention_heads} heads of {head_dim} are \
                 above {MAX_WIDTH}, more than any model has"
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
}

/// The defaults that transformers takes for fields that a nested config leaves out.
#[derive(Clone, Copy)]
struct Defaults {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    rms_norm_eps: f64,
    rope_theta: f64,
    /// Number of key and value heads; `None` means as many as query heads.
    num_key_value_heads: Option<usize>,
    max_position_embeddings: usize,
    /// Largest number of keys that a query sees, where the field is absent.
    sliding_window: Option<usize>,
}

const LLAMA: Defaults = Defaults {
    vocab_size: 32_000,
    hidden_size: 4096,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    intermediate_size: 11_008,
    num_key_value_heads: None,
    max_position_embeddings: 2048,
    sliding_window: None,
};

const MISTRAL: Defaults = Defaults {
    intermediate_size: 14_336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    sliding_window: Some(4096),
    ..LLAMA
};

/// The language model of Qwen2-VL and Qwen2.5-VL at 72B, whose window is not used.
const QWEN2_VL: Defaults = Defaults {
    vocab_size: 152_064,
    hidden_size: 8192,
    intermediate_size: 29_568,
    num_hidden_layers: 80,
    num_attention_heads: 64,
    num_key_value_heads: Some(8),
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
    max_position_embeddings: 32_768,
    sliding_window: None,
};

/// The fields of a decoder's config as they are written; `None` where a field was omitted.
#[derive(Deserialize)]
pub(in crate::model) struct RawDecoder {
    model_type: Option<String>,
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
    // Absent and null are two things: Mistral's default has a window.
    #[serde(default, deserialize_with = "present")]
    sliding_window: Option<Option<usize>>,
    hidden_act: Option<String>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    tie_word_embeddings: Option<bool>,
    head_dim: Option<usize>,
}

/// Reads a field that is present, null included.
fn present<'de, D: serde::Deserializer<'de>>(value: D) -> Result<Option<Option<usize>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// The treatment of a size that a config leaves out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::model) enum Omitted {
    /// transformers' default applies, as in nested configs.
    Default,
    /// The config is refused: flat configs have all sizes.
    Refused,
}

impl RawDecoder {
    /// The checked shape of the decoder; a `model_type` that ends in `mistral` selects Mistral's defaults, one that starts with `qwen2` those of Qwen2-VL.
    pub(in crate::model) fn check(self, path: &Path, omitted: Omitted) -> Result<DecoderConfig, Error> {
        let mistral = self.model_type.as_deref().is_some_and(|kind| kind.ends_with("mistral"));
        let qwen = self.model_type.as_deref().is_some_and(|kind| kind.starts_with("qwen2"));
        let defaults = match (mistral, qwen) {
            (true, _) => MISTRAL,
            (_, true) => QWEN2_VL,
            _ => LLAMA,
        };
        let size = |name: &str, value: Option<usize>, default: usize| match (value, omitted) {
            (Some(value), _) => Ok(value),
            (None, Omitted::Default) => Ok(default),
            (None, Omitted::Refused) => Err(super::missing(path, name)),
        };
        let heads = size("num_attention_heads", self.num_attention_heads, defaults.num_attention_heads)?;
        let hidden_size = size("hidden_size", self.hidden_size, defaults.hidden_size)?;
        if self.head_dim.is_none() && !divides(heads, hidden_size) {
            let reason = format!("hidden_size {hidden_size} does not divide into num_attention_heads {heads}");
            return Err(Error::config(path, reason));
        }
        let rope = RopeConfig::check(
            self.rope_theta.or(Some(defaults.rope_theta)),
            self.rope_scaling,
            self.rope_parameters,
            path,
        )?;
        let positions = self.max_position_embeddings.unwrap_or(defaults.max_position_embeddings);
        let positions = (positions as f64 * rope.stretch()) as usize;
        // The attention of a shorter sequence is the same with a window and without.
        let window = self.sliding_window.unwrap_or(defaults.sliding_window.filter(|_| mistral)).filter(|_| mistral);
        let config = DecoderConfig {
            vocab_size: size("vocab_size", self.vocab_size, defaults.vocab_size)?,
            hidden_size,
            intermediate_size: size("intermediate_size", self.intermediate_size, defaults.intermediate_size)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers, defaults.num_hidden_layers)?,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.or(defaults.num_key_value_heads).unwrap_or(heads),
            head_dim: self.head_dim.unwrap_or(hidden_size / heads.max(1)),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(defaults.rms_norm_eps),
            rope,
            max_position_embeddings: window.map_or(positions, |window| window.min(positions)),
            qkv_bias: self.attention_bias.unwrap_or(false),
            o_bias: self.attention_bias.unwrap_or(false),
            mlp_bias: self.mlp_bias.unwrap_or(false),
            tied: self.tie_word_embeddings.unwrap_or(false),
        };
        config.check_sizes(path)?;
        if let Some(act) = self.hidden_act.filter(|act| !["silu", "swish"].contains(&&act[..])) {
            return Err(Error::config(path, format!("hidden_act is `{}`; silu is known", printable(&act))));
        }
        Ok(config)
    }
}
