//! Presets of Qwen2-VL and Qwen2.5-VL: their published shapes, for random weights.

use super::{
    Qwen2Vl,
    config::{Generation, VisionConfig},
};
use crate::{
    image::DynamicProcessor,
    model::{DecoderConfig, RopeConfig},
};

/// The names of the presets.
pub(super) const PRESETS: &[&str] = &["qwen2-vl-2b", "qwen2-vl-7b", "qwen2.5-vl-3b", "qwen2.5-vl-7b"];

/// The largest number of pixels of an image in the published settings.
const MOST_PIXELS: usize = 12_845_056;

/// The preset `name`.
pub(super) fn preset(name: &str) -> Option<Qwen2Vl> {
    let (generation, text) = match name {
        "qwen2-vl-2b" => (Generation::Qwen2, decoder([1536, 8960, 28, 12, 2], 151_936, 32_768)),
        "qwen2-vl-7b" => (Generation::Qwen2, decoder([3584, 18_944, 28, 28, 4], 152_064, 32_768)),
        "qwen2.5-vl-3b" => (Generation::Qwen2_5, decoder([2048, 11_008, 36, 16, 2], 151_936, 128_000)),
        "qwen2.5-vl-7b" => (Generation::Qwen2_5, decoder([3584, 18_944, 28, 28, 4], 152_064, 128_000)),
        _ => return None,
    };
    let windowed = generation == Generation::Qwen2_5;
    let vision = VisionConfig {
        generation,
        depth: 32,
        hidden: 1280,
        inner: if windowed { 3420 } else { 5120 },
        heads: 16,
        patch: 14,
        frames: 2,
        merge: 2,
        window: windowed.then_some(4),
        full: vec![7, 15, 23, 31],
        tokens_per_second: windowed.then_some(2.0),
    };
    Some(Qwen2Vl { vision, text, processor: DynamicProcessor::published(MOST_PIXELS), pair: None })
}

/// A decoder of these sizes: width, width inside the MLP, layers, query heads, key heads.
fn decoder(
    [hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, num_key_value_heads]: [usize; 5],
    vocab_size: usize,
    positions: usize,
) -> DecoderConfig {
    DecoderConfig {
        vocab_size,
        hidden_size,
        intermediate_size,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads,
        head_dim: hidden_size / num_attention_heads,
        rms_norm_eps: 1e-6,
        rope: RopeConfig { theta: 1e6, sections: Some([16, 24, 24]), ..RopeConfig::default() },
        max_position_embeddings: positions,
        qkv_bias: true,
        // The smaller ones have no matrix of their own before the logits.
        tied: vocab_size == 151_936,
        ..DecoderConfig::default()
    }
}
