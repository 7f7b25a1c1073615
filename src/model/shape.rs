//! Models of a named shape with random weights, made where they run: what a benchmark needs of a checkpoint without 13 GB
//! of it.

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use half::{bf16, f16};
use rayon::prelude::*;
use secateur_backends::VlmBackend;

use super::{
    ClipJoint, ClipTextConfig, ClipVisionConfig, DEMO, Layout, LlamaConfig, Llava, LlavaConfig, LoadOptions, Opened,
    Pictures,
    llava::{Joint, Networks},
    open,
};
use crate::{
    Error,
    image::{Aspect, ClipProcessor},
    merge::Merge,
};

/// What `--shape` takes.
pub const SHAPES: [&str; 6] = ["llava-1.5-7b", "llava-1.5-13b", "llava-1.6-7b", "llava-1.6-13b", "video-7b", DEMO];

/// A model of this shape, whose tokenizers are those of the built-in checkpoint.
///
/// # Errors
/// When there is no such shape.
pub fn shaped(name: &str) -> Result<Opened, Error> {
    if !SHAPES.contains(&name) {
        return Err(Error::UnknownShape { name: name.to_owned(), known: SHAPES.join(", ") });
    }
    let mut opened = open(DEMO, None)?;
    if name == DEMO {
        return Ok(opened);
    }
    let side = if name == "video-7b" { 224 } else { 336 };
    let text = if name.ends_with("13b") { llama(5120, 13_824, 40) } else { llama(4096, 11_008, 32) };
    opened.processor.size = side;
    let mut vision = ClipVisionConfig::default();
    (vision.hidden_size, vision.intermediate_size) = (1024, 4096);
    (vision.num_hidden_layers, vision.num_attention_heads) = (24, 16);
    (vision.image_size, vision.patch_size) = (side, 14);
    let video = (name == "video-7b").then(|| {
        vision.hidden_act = "gelu".to_owned();
        opened.layout = Layout::Video;
        opened.processor = ClipProcessor::languagebind(side);
        ClipVisionConfig { add_time_attn: true, num_frames: 8, ..vision.clone() }
    });
    opened.config = LlavaConfig {
        vision,
        video,
        text,
        read_layers: 23,
        pictures: match name {
            "llava-1.6-7b" | "llava-1.6-13b" => Pictures::AnyRes {
                resolutions: vec![(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)],
                merge: Merge::SpatialUnpad,
            },
            _ => Pictures::Single(Aspect::Pad),
        },
    };
    Ok(opened)
}

fn llama(hidden_size: usize, intermediate_size: usize, layers: usize) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 32_000,
        hidden_size,
        intermediate_size,
        num_hidden_layers: layers,
        num_attention_heads: layers,
        num_key_value_heads: layers,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        position_scale: 1.0,
        max_position_embeddings: 4096,
    }
}

impl Opened {
    /// The networks with random weights, in 16 bits as in published checkpoints unless `options` say otherwise.
    ///
    /// # Errors
    /// When CLIP's text side is wanted, and its tokenizer cannot be read.
    pub fn random<B: VlmBackend>(self, options: LoadOptions, device: &B::Device) -> Result<Llava<B>, Error> {
        let weights = B::weight_dtype(options.dtype.unwrap_or(DType::F16), device);
        let activations = B::activation_dtype(weights);
        let networks = Networks::new(&self.config, device).map(&mut Fill { weights, vectors: activations, count: 0 });
        let joint = match options.joint {
            false => None,
            true => {
                // The built-in checkpoint's, whose own text side is smaller.
                let (_, _, tokenizer) = open(DEMO, None)?.open_joint()?;
                let (text, vision) = (clip_text(), &self.config.vision);
                let clip = ClipJoint::new(vision.hidden_size, vision.layer_norm_eps, &text, device);
                let weights = if activations == DType::F32 { weights } else { DType::F32 };
                Some(Joint { clip: clip.map(&mut Fill { weights, vectors: DType::F32, count: 0 }), tokenizer })
            }
        };
        Ok(self.assemble(networks, joint, activations, options, device))
    }
}

/// The text side of CLIP-L.
fn clip_text() -> ClipTextConfig {
    let mut text = ClipTextConfig::default();
    (text.hidden_size, text.intermediate_size) = (768, 3072);
    (text.num_attention_heads, text.projection_dim) = (12, 768);
    text
}

/// Gives every matrix random numbers that keep activations near 1, and every vector ones; each kind has its dtype.
struct Fill {
    weights: DType,
    vectors: DType,
    count: u64,
}

impl<B: Backend> ModuleMapper<B> for Fill {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        self.count += 1;
        let shape = param.lazy_shape();
        let device = param.lazy_device();
        let dtype = if D == 1 { self.vectors } else { self.weights };
        let inputs: usize = (1..D).map(|i| shape[i]).product();
        // Uniform, with the variance that leaves a product's inputs as large as they were.
        let reach = (3.0 / inputs as f32).sqrt();
        let noise = |i: usize| reach * (unit(self.count << 40 | i as u64) * 2.0 - 1.0);
        let size = shape.num_elements();
        let data = match (D, dtype) {
            (1, _) => TensorData::new(vec![1.0f32; size], shape),
            (_, DType::F16) => TensorData::new(fill(size, |i| f16::from_f32(noise(i))), shape),
            (_, DType::BF16) => TensorData::new(fill(size, |i| bf16::from_f32(noise(i))), shape),
            _ => TensorData::new(fill(size, noise), shape),
        };
        Param::initialized(param.id, Tensor::from_data(data, (&device, dtype)))
    }
}

fn fill<T: Send>(size: usize, value: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    (0..size).into_par_iter().map(value).collect()
}

/// A number from 0 to 1 that looks random, by SplitMix64's finaliser.
fn unit(seed: u64) -> f32 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}
