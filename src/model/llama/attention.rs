//! Attention between the tokens of a layer: from hidden states to heads, and back.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{Mask, VlmBackend};

use crate::model::{KvCache, Linear, rope::RopeRows};

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
    /// The new queries, and the keys and values of all positions, all `[1, heads, positions, head_dim]`.
    pub(super) fn project(
        &self,
        x: Tensor<B, 3>,
        layer: usize,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> (Tensor<B, 4>, [Tensor<B, 4>; 2]) {
        let (q, [k, v]) = self.heads(x, rope);
        (q, cache.append(layer, k, v).map(|x| self.repeat(x)))
    }

    /// Queries, keys and values of `x`, rotated, `[batch, heads, tokens, head_dim]`.
    pub(super) fn heads(&self, x: Tensor<B, 3>, rope: &RopeRows<B>) -> (Tensor<B, 4>, [Tensor<B, 4>; 2]) {
        self.split(self.products(x.clone(), x), [rope; 2])
    }

    /// Queries of some tokens, keys and values of some, `[batch, tokens, heads · head_dim]`.
    pub(super) fn products(&self, queries: Tensor<B, 3>, keys: Tensor<B, 3>) -> [Tensor<B, 3>; 3] {
        [self.q_proj.forward(queries), self.k_proj.forward(keys.clone()), self.v_proj.forward(keys)]
    }

    /// These as heads, `[batch, heads, tokens, head_dim]`, queries and keys rotated, each by their own rows.
    pub(super) fn split(
        &self,
        [q, k, v]: [Tensor<B, 3>; 3],
        ropes: [&RopeRows<B>; 2],
    ) -> (Tensor<B, 4>, [Tensor<B, 4>; 2]) {
        let split = |x: Tensor<B, 3>, heads: usize| {
            let [batch, new, width] = x.dims();
            x.reshape([batch, new, heads, width / heads]).swap_dims(1, 2)
        };
        let (q, k) = (ropes[0].rotate(split(q, self.heads)), ropes[1].rotate(split(k, self.kv_heads)));
        (q, [k, split(v, self.kv_heads)])
    }

    /// `[batch, heads, tokens, head_dim]` → `[batch, tokens, heads · head_dim]`.
    fn join(&self, attended: Tensor<B, 4>) -> Tensor<B, 3> {
        let [batch, heads, new, head_dim] = attended.dims();
        attended.swap_dims(1, 2).reshape([batch, new, heads * head_dim])
    }

    /// Attention as `[batch, tokens, heads · head_dim]`.
    pub(super) fn attend(&self, [q, k, v]: [Tensor<B, 4>; 3], mask: Mask) -> Tensor<B, 3> {
        self.join(if self.q_proj.rounds() { B::attend_rounded(q, k, v, mask) } else { B::attend(q, k, v, mask) })
    }

    /// Key and value heads, each as often as query heads share it.
    pub(super) fn repeat(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let groups = self.heads / self.kv_heads;
        if groups == 1 {
            return x;
        }
        let [batch, heads, len, head_dim] = x.dims();
        x.unsqueeze_dim::<5>(2).expand([batch, heads, groups, len, head_dim]).reshape([
            batch,
            heads * groups,
            len,
            head_dim,
        ])
    }
}
