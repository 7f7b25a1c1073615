//! The operations that Secateur adds to Burn's, each with a reference body in plain tensor code.

use burn::tensor::{
    DType, Int, Tensor, TensorPrimitive,
    backend::Backend,
    module::attention_fallback,
    ops::{AttentionModuleOptions, FloatTensor},
};

use crate::dpp;

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

    /// `x · weightᵀ` for `x` `[rows, in]` and `weight` `[out, in]`, the layout of checkpoint files.
    ///
    /// The weight may have a smaller dtype than `x`; the product has the dtype of `x`.
    fn apply_weight(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        reference_product::<Self>(x, weight)
    }

    /// `softmax(q·kᵀ/√head_dim)·v` over `[batch, heads, tokens, head_dim]`. With `causal`, the queries are the last
    /// of the keys' positions and see no later one. Scores
    /// and softmax are f32 whatever the dtype of `q`.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, causal: bool) -> Tensor<Self, 4> {
        let dtype = q.dtype();
        let [q, k, v] = [q, k, v].map(|x| if dtype == DType::F32 { x } else { x.cast(DType::F32) });
        attention_fallback(q, k, v, None, None, attention_options(causal)).cast(dtype)
    }

    /// Writes `new` `[1, heads, n, head_dim]` into `buffer` `[1, heads, capacity, head_dim]` from position `at` on.
    /// The buffer should be owned once, so that it can be written in place.
    fn write_positions(buffer: Tensor<Self, 4>, at: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [batch, heads, count, head_dim] = new.dims();
        buffer.slice_assign([0..batch, 0..heads, at..at + count, 0..head_dim], new)
    }

    /// The `budget` items that a determinantal point process over `vectors` `[sets, items, width]` (f32, finite) would
    /// choose first, in the order of choice: `[sets, budget]`. Its kernel is the products of the vectors; see
    /// [`crate::dpp`].
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_device(vectors, budget)
    }
}

pub(crate) fn attention_options(causal: bool) -> AttentionModuleOptions {
    AttentionModuleOptions { is_causal: causal, ..Default::default() }
}

/// The reference body of [`VlmBackend::apply_weight`]: cast, transpose, multiply.
pub(crate) fn reference_product<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let x = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(x));
    let weight = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(weight));
    let weight = if weight.dtype() == x.dtype() { weight } else { weight.cast(x.dtype()) };
    x.matmul(weight.transpose()).into_primitive().tensor()
}
