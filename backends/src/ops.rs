//! The operations that Secateur adds to Burn's, each with a reference body in plain tensor code.

use burn::tensor::{DType, Int, Tensor, TensorData, TensorPrimitive, activation, backend::Backend, ops::FloatTensor};

use rayon::prelude::*;
use secateur_blocks::Blocks;

use crate::{Mask, dpp};

/// The rounding of its inputs that a product with weights in blocks may do where that is faster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Nothing: inputs are f32.
    #[default]
    None,
    /// bf16, weights too.
    Bf16,
    /// Whole numbers of 8 bits with a scale for every 16 of them, as llama.cpp does.
    Int8,
}

/// A Burn backend that can run Secateur's models.
///
/// Two dtypes matter: *weights* keep the 16-bit type of the checkpoint where the device can store it, and
/// *activations* are computed in [`Self::activation_dtype`]. On CPUs activations are always f32, so that a 16-bit
/// checkpoint gives the numbers of its f32 copy, in half the memory.
pub trait VlmBackend: Backend {
    /// The dtype in which weights of dtype `wanted` are kept on `device`: `wanted` itself where the device
    /// computes with it, else f32.
    fn weight_dtype(wanted: DType, device: &Self::Device) -> DType {
        if Self::supports_dtype(device, wanted) { wanted } else { DType::F32 }
    }

    /// The dtype of activations next to weights of dtype `weights`.
    fn activation_dtype(_weights: DType) -> DType {
        DType::F32
    }

    /// The product of the last two dimensions, `[…, n, k]` times `[…, k, m]`, in which f32 stays f32: for a plain
    /// product, GPUs may round the inputs to 11 bits.
    fn matmul_f32<const D: usize>(a: Tensor<Self, D>, b: Tensor<Self, D>) -> Tensor<Self, D> {
        a.matmul(b)
    }

    /// A linear layer, `x · weightᵀ`, for `x` `[rows, in]` and `weight` `[out, in]`, the layout of checkpoint files.
    ///
    /// The weight may have a smaller dtype than `x`; the product has the dtype of `x`.
    fn linear_rows(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        reference_linear::<Self>(x, weight)
    }

    /// A linear layer as [`Self::linear_rows`], in which `x` may be rounded to the weight's dtype if that is faster. It
    /// is for users who asked for 16 bits.
    fn linear_rows_bf16(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::linear_rows(x, weight)
    }

    /// A linear layer as [`Self::linear_rows_bf16`], plus `bias` `[out]` in every row.
    fn linear_rows_bf16_biased(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        add_after::<Self>(Self::linear_rows_bf16(x, weight), bias)
    }

    /// Whether weights in blocks stay in blocks. If not, they become 16-bit weights when they are loaded.
    fn keeps_blocks() -> bool {
        true
    }

    /// Whether [`Rounding::Int8`] makes a difference on this machine.
    fn multiplies_int8() -> bool {
        false
    }

    /// A linear layer as [`Self::linear_rows`], for a weight in blocks, `[out, in]`.
    fn linear_blocks(x: FloatTensor<Self>, weight: &Blocks, _rounding: Rounding) -> FloatTensor<Self> {
        reference_linear_blocks::<Self>(x, weight)
    }

    /// Attention, `softmax(q·kᵀ/√head_dim)·v`, for queries `[batch, heads, tokens, head_dim]`, and keys and values
    /// `[batch, kv_heads, tokens, head_dim]`, which may have another dtype. It is grouped: `heads / kv_heads` query
    /// heads, one after another, share a key head. Scores and softmax are f32 whatever the dtype of `q`. The result has
    /// the dtype of `q`.
    ///
    /// # Panics
    /// When the shapes do not belong together, or there is a mask and there are more queries than keys.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        reference_attend(q, k, v, mask)
    }

    /// Attention as [`Self::attend`], in which queries, keys, values and the softmax may be rounded to bf16 if that is faster.
    fn attend_bf16(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        Self::attend(q, k, v, mask)
    }

    /// The gate of a Llama layer's MLP, `silu(gate) · up`, of two tensors `[batch, tokens, features]`.
    fn silu_mul(gate: Tensor<Self, 3>, up: Tensor<Self, 3>) -> Tensor<Self, 3> {
        reference_silu_mul(gate, up)
    }

    /// The activation of a CLIP layer, `x · σ(1.702·x)`, of `x` `[batch, tokens, features]`.
    fn quick_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        reference_quick_gelu(x)
    }

    /// The activation of a projector, `x · Φ(x)`, of `x` `[batch, tokens, features]`. Φ(x) is the share of a normal
    /// distribution below `x`.
    fn exact_gelu(x: Tensor<Self, 3>) -> Tensor<Self, 3> {
        activation::gelu(x)
    }

    /// Adds `bias` `[features]` to every row of `x` `[rows, features]`.
    fn add_bias(x: Tensor<Self, 2>, bias: Tensor<Self, 1>) -> Tensor<Self, 2> {
        reference_add_bias(x, bias)
    }

    /// RMS norm: rows of `x` `[rows, features]` divided by their root mean square, times `weight` `[features]`.
    /// Statistics are f32 whatever the dtype of `x`.
    fn rms_norm_rows(x: Tensor<Self, 2>, weight: Tensor<Self, 1>, eps: f64) -> Tensor<Self, 2> {
        reference_rms_norm(x, weight, eps)
    }

    /// Layer norm: rows of `x` `[rows, features]` less their mean, divided by their standard deviation, times `weight`,
    /// plus `bias`, both `[features]`. Statistics are f32 whatever the dtype of `x`.
    fn layer_norm_rows(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        eps: f64,
    ) -> Tensor<Self, 2> {
        reference_layer_norm(x, weight, bias, eps)
    }

    /// Rotary position embedding: rotates the first half of each head's row against the second, `x · cos + (−second,
    /// first) · sin`, for `x` `[batch, heads, tokens, head_dim]` and tables `[1, 1, tokens, head_dim]` whose halves are equal.
    fn apply_rope(x: Tensor<Self, 4>, cos: Tensor<Self, 4>, sin: Tensor<Self, 4>) -> Tensor<Self, 4> {
        reference_apply_rope(x, cos, sin)
    }

    /// The attention that each token receives from all tokens, `softmax(q·kᵀ/√head_dim)` averaged over heads and queries, for queries and keys `[batch,
    /// heads, tokens, head_dim]`: `[batch, tokens]` in f32. With `bf16`, queries and keys may be rounded to bf16 if that is faster.
    fn attention_received(q: Tensor<Self, 4>, k: Tensor<Self, 4>, _bf16: bool) -> Tensor<Self, 2> {
        reference_attention_received(q, k)
    }

    /// The dtype in which keys and values are kept next to activations of dtype `activations`; `bf16` says whether
    /// products may round to bf16.
    fn cache_dtype(activations: DType, _bf16: bool) -> DType {
        activations
    }

    /// Writes `new` `[1, kv_heads, n, head_dim]`, rounded to the dtype of `buffer` `[1, kv_heads, capacity, head_dim]`,
    /// into the buffer from position `at` on. The buffer should have one owner only, so that it can be written in place.
    fn write_positions(buffer: Tensor<Self, 4>, at: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        reference_write_positions(buffer, at, new)
    }

    /// The `budget` items that a determinantal point process over `vectors` `[sets, items, width]` (f32, finite) would
    /// choose first, in the order of choice: `[sets, budget]`. Its kernel is the products of the vectors; see
    /// [`crate::dpp`].
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_device(vectors, budget)
    }
}

/// Adds a bias to a product, as an operation of its own.
pub(crate) fn add_after<B: VlmBackend>(product: FloatTensor<B>, bias: FloatTensor<B>) -> FloatTensor<B> {
    let product = Tensor::from_primitive(TensorPrimitive::Float(product));
    B::add_bias(product, Tensor::from_primitive(TensorPrimitive::Float(bias))).into_primitive().tensor()
}

/// The number of queries whose attention to all keys is held at a time by [`reference_attention_received`].
const RECEIVED: usize = 128;

/// The reference body of [`VlmBackend::attention_received`]. The matrix of all tokens with all tokens is never held as a whole.
pub(crate) fn reference_attention_received<B: VlmBackend>(q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 2> {
    let [batch, heads, tokens, head_dim] = q.dims();
    let q = in_f32(q) * (head_dim as f64).powf(-0.5);
    let k = in_f32(k).swap_dims(2, 3);
    let blocks = (0..tokens).step_by(RECEIVED).map(|first| {
        let block = q.clone().narrow(2, first, RECEIVED.min(tokens - first));
        activation::softmax(B::matmul_f32(block, k.clone()), 3).sum_dim(2)
    });
    let sum = blocks.reduce(|sum, block| sum + block);
    let sum = sum.unwrap_or_else(|| Tensor::zeros([batch, heads, 1, tokens], (&k.device(), DType::F32)));
    (sum.sum_dim(1) / (heads * tokens).max(1) as f64).reshape([batch, tokens])
}

/// The reference body of [`VlmBackend::attend`].
pub(crate) fn reference_attend<B: VlmBackend>(
    q: Tensor<B, 4>,
    k: Tensor<B, 4>,
    v: Tensor<B, 4>,
    mask: Mask,
) -> Tensor<B, 4> {
    mask.check([q.dims(), k.dims(), v.dims()]);
    let dtype = q.dtype();
    let [q, k, v] = [q, k, v].map(in_f32);
    let [batch, heads, queries, head_dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let hidden = mask.hidden(queries, keys, &q.device());
    let (each, grouped) = ([batch, heads, queries], [batch, kv_heads, heads / kv_heads * queries]);
    // Query heads that share a key head are rows of one product.
    let regroup = |x: Tensor<B, 4>, [batch, heads, rows]: [usize; 3]| {
        let width = x.dims()[3];
        if kv_heads == each[1] { x } else { x.reshape([batch, heads, rows, width]) }
    };
    let scores = B::matmul_f32(regroup(q, grouped), k.swap_dims(2, 3)) * (1.0 / (head_dim as f64).sqrt());
    let scores = regroup(scores, each);
    let scores = match hidden {
        None => scores,
        Some(hidden) => scores.mask_fill(hidden.expand([batch, heads, queries, keys]), f32::NEG_INFINITY),
    };
    let shares = regroup(activation::softmax(scores, 3), grouped);
    regroup(B::matmul_f32(shares, v), each).cast(dtype)
}

/// The reference body of [`VlmBackend::silu_mul`].
pub(crate) fn reference_silu_mul<B: Backend>(gate: Tensor<B, 3>, up: Tensor<B, 3>) -> Tensor<B, 3> {
    activation::silu(gate) * up
}

/// The reference body of [`VlmBackend::quick_gelu`].
pub(crate) fn reference_quick_gelu<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    x.clone() * activation::sigmoid(x * 1.702)
}

/// The reference body of [`VlmBackend::add_bias`].
pub(crate) fn reference_add_bias<B: Backend>(x: Tensor<B, 2>, bias: Tensor<B, 1>) -> Tensor<B, 2> {
    x + bias.unsqueeze()
}

/// The reference body of [`VlmBackend::write_positions`].
pub(crate) fn reference_write_positions<B: Backend>(
    buffer: Tensor<B, 4>,
    at: usize,
    new: Tensor<B, 4>,
) -> Tensor<B, 4> {
    let [batch, heads, count, head_dim] = new.dims();
    let new = if new.dtype() == buffer.dtype() { new } else { new.cast(buffer.dtype()) };
    buffer.slice_assign([0..batch, 0..heads, at..at + count, 0..head_dim], new)
}

/// The reference body of [`VlmBackend::linear_rows`]: cast, transpose, multiply.
pub(crate) fn reference_linear<B: VlmBackend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let x = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x));
    let weight = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(weight));
    let weight = if weight.dtype() == x.dtype() { weight } else { weight.cast(x.dtype()) };
    B::matmul_f32(x, weight.transpose()).into_primitive().tensor()
}

/// The reference body of [`VlmBackend::linear_blocks`]: take the blocks apart, then multiply.
pub(crate) fn reference_linear_blocks<B: VlmBackend>(x: FloatTensor<B>, weight: &Blocks) -> FloatTensor<B> {
    let [_, inputs] = weight.shape();
    let mut values = vec![0.0f32; weight.shape().iter().product()];
    values.par_chunks_mut(inputs.max(1)).enumerate().for_each(|(row, to)| weight.unpack_row(row, to));
    let device = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x.clone())).device();
    let weight = Tensor::<B, 2>::from_data(TensorData::new(values, weight.shape()), (&device, DType::F32));
    reference_linear::<B>(x, weight.into_primitive().tensor())
}

/// The reference body of [`VlmBackend::rms_norm_rows`].
pub(crate) fn reference_rms_norm<B: Backend>(x: Tensor<B, 2>, weight: Tensor<B, 1>, eps: f64) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = in_f32(x);
    let mean_square = x.clone().square().mean_dim(1);
    let x = x / (mean_square + eps).sqrt();
    x.cast(dtype) * weight.unsqueeze()
}

/// The reference body of [`VlmBackend::layer_norm_rows`].
pub(crate) fn reference_layer_norm<B: Backend>(
    x: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    eps: f64,
) -> Tensor<B, 2> {
    let dtype = x.dtype();
    let x = in_f32(x);
    let x = x.clone() - x.mean_dim(1);
    let variance = x.clone().square().mean_dim(1);
    let x = x / (variance + eps).sqrt();
    // The result is rounded once, at its end, as in PyTorch.
    (x * in_f32(weight).unsqueeze() + in_f32(bias).unsqueeze()).cast(dtype)
}

fn in_f32<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    if x.dtype() == DType::F32 { x } else { x.cast(DType::F32) }
}

/// The reference body of [`VlmBackend::apply_rope`].
pub(crate) fn reference_apply_rope<B: Backend>(x: Tensor<B, 4>, cos: Tensor<B, 4>, sin: Tensor<B, 4>) -> Tensor<B, 4> {
    let half = x.dims()[3] / 2;
    let (first, second) = (x.clone().narrow(3, 0, half), x.clone().narrow(3, half, half));
    let turned = Tensor::cat(vec![second.neg(), first], 3);
    x * cos + turned * sin
}
