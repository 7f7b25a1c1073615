//! Presets of LLaVA: its published shapes, for random weights.

use super::{Images, Language, Layout, Llava, LlavaConfig};
use crate::{
    image::{Aspect, ClipProcessor},
    model::{DecoderConfig, RopeConfig, RopeScaling, towers::clip::ClipVisionConfig},
    sequence::Merge,
};

/// The names of the presets.
pub(super) const PRESETS: &[&str] =
    &["llava-1.5-7b", "llava-1.5-13b", "llava-1.6-7b", "llava-1.6-13b", "llava-1.6-mistral-7b", "llava-1.6-llama3-8b"];

/// LLaVA-NeXT's resolutions.
const RESOLUTIONS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

/// The preset `name`.
pub(super) fn preset(name: &str) -> Option<Llava> {
    PRESETS.contains(&name).then(|| {
        let text = match name.rsplit_once('-').map(|(_, size)| size) {
            Some("13b") => DecoderConfig {
                hidden_size: 5120,
                intermediate_size: 13_824,
                num_hidden_layers: 40,
                num_attention_heads: 40,
                num_key_value_heads: 40,
                ..DecoderConfig::default()
            },
            _ if name.contains("mistral") => on_fewer_heads(32_064, 1e6, 32_768),
            Some("8b") => on_fewer_heads(128_320, 5e5, 8192),
            _ => DecoderConfig::default(),
        };
        let language = if name.contains("mistral") { Language::Mistral } else { Language::Llama };
        let images = if name.starts_with("llava-1.6") {
            Images::AnyRes { resolutions: RESOLUTIONS.to_vec(), merge: Merge::SpatialUnpad }
        } else {
            Images::Single(Aspect::Pad)
        };
        Llava {
            config: LlavaConfig { vision: clip_l(336), text, vision_feature_layer: 23, images },
            processor: ClipProcessor::openai(336),
            language,
            layout: Layout::Hf,
            towers: Vec::new(),
            own_tower: true,
            pair: None,
        }
    })
}

/// A decoder of Vicuna-7B's width whose 32 query heads share 8 key heads: Mistral-7B and Llama-3-8B.
fn on_fewer_heads(vocab_size: usize, theta: f64, positions: usize) -> DecoderConfig {
    DecoderConfig {
        vocab_size,
        intermediate_size: 14_336,
        num_key_value_heads: 8,
        rope: RopeConfig { theta, scaling: RopeScaling::None, sections: None },
        max_position_embeddings: positions,
        ..DecoderConfig::default()
    }
}

/// CLIP-L at `side` pixels.
pub(in crate::model::families) fn clip_l(side: usize) -> ClipVisionConfig {
    ClipVisionConfig {
        hidden_size: 1024,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 16,
        image_size: side,
        patch_size: 14,
        ..ClipVisionConfig::default()
    }
}
