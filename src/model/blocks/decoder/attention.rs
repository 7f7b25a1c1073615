//! Attention between the tokens of a layer: from hidden states to heads, and back.

use burn::{
    module::Module,
    tensor::{DType, Tensor, activation, backend::Backend},
};
use secateur_backends::{Mask, VlmBackend, operations::attend};

use super::super::rope::RopeRows;
use crate::model::Linear;

/// A layer's attention.
#[derive(Module, Debug)]
pub(super) struct Attention<B: Backend> {
    pub(super) q_proj: Linear<B>,
    pub(super) k_proj: Linear<B>,
    pub(super) v_proj: Linear<B>,
    pub(super) o_proj: Linear<B>,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
}

impl<B: VlmBackend> Attention<B> {
    /// Queries of some tokens as heads `[batch, heads, tokens, head_dim]`, rotated.
    pub(super) fn queries(&self, q: Tensor<B, 3>, rope: &RopeRows<B>) -> Tensor<B, 4> {
        rope.apply(split(q, self.heads))
    }

    /// Keys and values of some tokens as heads `[batch, kv_heads, tokens, head_dim]`, keys rotated.
    pub(super) fn keys_values(&self, [k, v]: [Tensor<B, 3>; 2], rope: &RopeRows<B>) -> [Tensor<B, 4>; 2] {
        [rope.apply(split(k, self.kv_heads)), split(v, self.kv_heads)]
    }

    /// The result of attention for the queries `q`, `[batch, tokens, heads · head_dim]`.
    pub(super) fn attend(&self, q: Tensor<B, 4>, [k, v]: [Tensor<B, 4>; 2], mask: Mask) -> Tensor<B, 3> {
        // A single query, which is the last, sees all.
        let mask = if q.dims()[2] == 1 && mask == Mask::Causal { Mask::None } else { mask };
        let attended = attend([q, k, v], mask, self.q_proj.is_bf16());
        let [batch, heads, tokens, head_dim] = attended.dims();
        attended.swap_dims(1, 2).reshape([batch, tokens, heads * head_dim])
    }
}

/// Splits tokens into heads: `[batch, tokens, heads · head_dim]` → `[batch, heads, tokens, head_dim]`.
fn split<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [batch, tokens, width] = x.dims();
    x.reshape([batch, tokens, heads, width / heads]).swap_dims(1, 2)
}

/// The scores of queries `[1, heads, rows, head_dim]` for keys `[1, kv_heads, tokens, head_dim]` before the softmax, `[1, heads, rows,
/// tokens]` in f32.
pub(super) fn scores<B: VlmBackend>(q: Tensor<B, 4>, k: &Tensor<B, 4>) -> Tensor<B, 4> {
    let [_, heads, rows, head_dim] = q.dims();
    let [_, kv_heads, tokens, _] = k.dims();
    let q = q.cast(DType::F32) * (head_dim as f64).powf(-0.5);
    // Queries that share a key head are rows of one product.
    let q = q.reshape([1, kv_heads, heads / kv_heads * rows, head_dim]);
    let scores = B::matmul_f32(q, k.clone().cast(DType::F32).swap_dims(2, 3));
    scores.reshape([1, heads, rows, tokens])
}

/// The attention that the last of the queries `q` pays to all tokens, `[heads, tokens]` in f32.
pub(super) fn last_row<B: VlmBackend>(q: &Tensor<B, 4>, k: &Tensor<B, 4>) -> Tensor<B, 2> {
    let [_, heads, rows, _] = q.dims();
    let tokens = k.dims()[2];
    let last = q.clone().narrow(2, rows - 1, 1);
    activation::softmax(scores(last, k), 3).reshape([heads, tokens])
}
