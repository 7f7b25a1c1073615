//! Networks filled from stored tensors, or with random numbers of the same shapes.

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Tensor, TensorData, backend::Backend},
};
use half::{bf16, f16};
use rayon::prelude::*;
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint as TensorFiles, Dtypes, StoredTensor, load};

use super::{
    Build, Slots,
    finite::Source,
    mixture::Mixture,
    towers::clip::{ClipJoint, ClipVisionConfig, JOINT, Joint, POST_LAYERNORM, TextSide},
};
use crate::Error;

/// The source of weights that fills the networks of a model.
pub struct Fill<'a, B: Backend> {
    weights: Weights,
    /// The dtype that matrices are kept in, where the file does not decide.
    dtype: Option<DType>,
    activations: DType,
    bf16: bool,
    /// The text side, where it is wanted.
    text: Option<TextSide>,
    /// The tensors that networks were filled from, kept for the search for numbers that are not finite.
    source: Source,
    /// The places for weights in blocks.
    slots: Slots,
    /// The layouts of blocks that the decoder's matrices are put into.
    mixture: Option<Mixture>,
    int8: bool,
    device: &'a B::Device,
}

/// The source of the weights: stored tensors, or random numbers.
enum Weights {
    /// Tensors by their paths in the model, and the folder that messages name.
    Stored { tensors: BTreeMap<String, StoredTensor>, folder: PathBuf, norm: BTreeMap<String, StoredTensor> },
    /// Random numbers, read from no file.
    Random(Random),
}

impl<'a, B: VlmBackend> Fill<'a, B> {
    /// A fill from stored `tensors`; the decoder's matrices have the dtype `stored` in the file.
    pub(super) fn stored(
        mut tensors: BTreeMap<String, StoredTensor>,
        folder: PathBuf,
        stored: DType,
        dtype: Option<DType>,
        text: Option<TextSide>,
        device: &'a B::Device,
    ) -> Self {
        let norm = split_off(&mut tensors, POST_LAYERNORM);
        let activations = B::activation_dtype(B::weight_dtype(dtype.unwrap_or(stored), device));
        // Where activations are 16-bit, an f32 tower beside a 16-bit decoder would be cast at every product.
        let weights = dtype.or((activations != DType::F32).then_some(activations));
        let source = Source::new(weights.map_or(DType::F32, |dtype| B::weight_dtype(dtype, device)));
        let from = Weights::Stored { tensors, folder, norm };
        let bf16 = dtype == Some(DType::BF16);
        let slots = Slots::default();
        Self {
            weights: from,
            dtype: weights,
            activations,
            bf16,
            text,
            source,
            slots,
            mixture: None,
            int8: false,
            device,
        }
    }

    /// A fill with random numbers, in 16 bits as in published checkpoints unless `dtype` says otherwise.
    pub(super) fn random(dtype: Option<DType>, text: Option<TextSide>, device: &'a B::Device) -> Self {
        let weights = B::weight_dtype(dtype.unwrap_or(DType::F16), device);
        let activations = B::activation_dtype(weights);
        let random = Random { weights, vectors: activations, count: 0 };
        let (bf16, source) = (dtype == Some(DType::BF16), Source::default());
        let (weights, slots) = (Weights::Random(random), Slots::default());
        Self { weights, dtype, activations, bf16, text, source, slots, mixture: None, int8: false, device }
    }

    /// Puts the decoder's matrices into blocks, where the backend keeps blocks.
    pub(super) fn quantised(mut self, mixture: Option<Mixture>) -> Self {
        self.mixture = mixture.filter(|_| B::keeps_blocks());
        self
    }

    /// Lets products with weights in blocks round their inputs to 8 bits.
    pub(super) fn with_int8(mut self, int8: bool) -> Self {
        self.int8 = int8;
        self
    }

    /// The settings that networks are built with. A request for bf16 gets bf16 products.
    pub fn build(&self) -> Build<'_, B> {
        Build { device: self.device, bf16: self.bf16, int8: self.int8, slots: Some(&self.slots) }
    }

    /// The device of the networks.
    pub fn device(&self) -> &'a B::Device {
        self.device
    }

    /// The dtype of activations.
    pub fn activations(&self) -> DType {
        self.activations
    }

    /// The tensors that networks were filled from.
    pub(super) fn source(self) -> Source {
        self.source
    }

    /// Fills `module` with the tensors whose paths start with `prefix`, which is a part of the module's own paths. Ask for the parts of a
    /// model first, and for `""` last: a tensor that nobody asked for is an error there.
    ///
    /// # Errors
    /// When a tensor is missing, unused or of another shape.
    pub fn module<M: Module<B>>(&mut self, prefix: &str, module: M) -> Result<M, Error> {
        match &mut self.weights {
            Weights::Random(random) => {
                let mixture = self.mixture.as_ref();
                Ok(module.map(&mut RandomFill { random, mixture, slots: &self.slots, path: Vec::new() }))
            }
            Weights::Stored { tensors, folder, .. } => {
                let tensors = split_off(tensors, prefix);
                self.source.add("", tensors.clone());
                let unpacked = if B::keeps_blocks() { DType::F32 } else { DType::F16 };
                let dtypes = Dtypes { weights: self.dtype, vectors: self.activations, unpacked };
                let kept = |dtype| B::weight_dtype(dtype, self.device);
                let (slots, mixture) = (&self.slots, self.mixture.as_ref());
                let mut take = |path: &str, id, tensor: &StoredTensor| {
                    let blocks = || match tensor.blocks() {
                        Some(blocks) => Some(blocks),
                        None => mixture?.quantise(path, tensor),
                    };
                    B::keeps_blocks() && slots.has(id) && blocks().is_some_and(|blocks| slots.fill(id, blocks))
                };
                Ok(load::<B, _>(module, tensors, dtypes, kept, &mut take, folder)?)
            }
        }
    }

    /// The text side beside a tower of the shape `vision`, where it is wanted, in f32. The norm between tower and joint space is the
    /// tower's own, where the checkpoint brought its tower along.
    ///
    /// # Errors
    /// When a tensor is missing, unused or of another shape.
    pub fn joint(&mut self, vision: &ClipVisionConfig) -> Result<Option<Joint<B>>, Error> {
        let Some(TextSide { folder, config, tokenizer }) = self.text.take() else { return Ok(None) };
        let clip = ClipJoint::<B>::new(vision.hidden_size, vision.layer_norm_eps, &config, self.device);
        let clip = match &mut self.weights {
            Weights::Random(random) => {
                let weights = if self.activations == DType::F32 { random.weights } else { DType::F32 };
                let random = &mut Random { weights, vectors: DType::F32, count: 0 };
                clip.map(&mut RandomFill { random, mixture: None, slots: &self.slots, path: Vec::new() })
            }
            Weights::Stored { norm, .. } => {
                let mut tensors = JOINT.apply(TensorFiles::open(&folder)?)?;
                for (path, tensor) in std::mem::take(norm) {
                    tensors.insert(path.replace(POST_LAYERNORM, "post_layernorm."), tensor);
                }
                self.source.add("clip.", tensors.clone());
                let dtypes = Dtypes { weights: None, vectors: DType::F32, unpacked: DType::F32 };
                let kept = |dtype| widest::<B>(dtype, self.device);
                load::<B, _>(clip, tensors, dtypes, kept, &mut |_, _, _| false, &folder)?
            }
        };
        Ok(Some(Joint { clip, tokenizer }))
    }
}

/// Takes out the entries whose paths start with `prefix`.
pub(super) fn split_off(tensors: &mut BTreeMap<String, StoredTensor>, prefix: &str) -> BTreeMap<String, StoredTensor> {
    tensors.extract_if(.., |path, _| path.starts_with(prefix)).collect()
}

/// The dtype of the text side's weights: products with f32 activations take 16-bit weights only where
/// [`VlmBackend::activation_dtype`] says so.
fn widest<B: VlmBackend>(dtype: DType, device: &B::Device) -> DType {
    let kept = B::weight_dtype(dtype, device);
    if B::activation_dtype(kept) == DType::F32 { kept } else { DType::F32 }
}

/// Gives every matrix random numbers that keep activations near 1, and every vector ones; each kind has its dtype.
struct Random {
    weights: DType,
    vectors: DType,
    count: u64,
}

/// Fills a network with random numbers.
struct RandomFill<'f> {
    random: &'f mut Random,
    mixture: Option<&'f Mixture>,
    slots: &'f Slots,
    path: Vec<String>,
}

impl<B: Backend> ModuleMapper<B> for RandomFill<'_> {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let shape = param.lazy_shape();
        if let (Some(mixture), [rows, columns]) = (self.mixture, shape.as_slice())
            && self.slots.has(param.id)
            && let Some(blocks) = mixture.random(&self.path.join("."), [*rows, *columns])
            && self.slots.fill(param.id, blocks)
        {
            return param;
        }
        self.random.map(param)
    }
}

impl Random {
    fn map<B: Backend, const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
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
            (_, DType::F16) => TensorData::new(numbers(size, |i| f16::from_f32(noise(i))), shape),
            (_, DType::BF16) => TensorData::new(numbers(size, |i| bf16::from_f32(noise(i))), shape),
            _ => TensorData::new(numbers(size, noise), shape),
        };
        Param::initialized(param.id, Tensor::from_data(data, (&device, dtype)))
    }
}

fn numbers<T: Send>(size: usize, value: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    (0..size).into_par_iter().map(value).collect()
}

/// A number from 0 to 1 that looks random, by SplitMix64's finaliser.
fn unit(seed: u64) -> f32 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
}
