//! A layer, in the ways that it is run.

use burn::{
    module::Module,
    tensor::{DType, Tensor, activation, backend::Backend},
};
use secateur_backends::{Mask, VlmBackend};

use super::{Part, attention::Attention};
use crate::{
    merge::select,
    model::{KvCache, Linear, RmsNorm, rope::RopeRows},
};

/// A layer's attention and MLP, each behind a norm and added to what came in.
#[derive(Module, Debug)]
pub(super) struct Layer<B: Backend> {
    pub(super) input_layernorm: RmsNorm<B>,
    pub(super) self_attn: Attention<B>,
    pub(super) post_attention_layernorm: RmsNorm<B>,
    pub(super) mlp: Mlp<B>,
}

#[derive(Module, Debug)]
pub(super) struct Mlp<B: Backend> {
    pub(super) gate_proj: Linear<B>,
    pub(super) up_proj: Linear<B>,
    pub(super) down_proj: Linear<B>,
}

/// What so many new tokens see: a single one, which is the last, sees all.
fn causal(new: usize) -> Mask {
    if new > 1 { Mask::Causal } else { Mask::None }
}

/// `[1, tokens, hidden]` → `[1, 1, hidden]`.
pub(super) fn last_token<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    let tokens = x.dims()[1];
    x.narrow(1, tokens - 1, 1)
}

impl<B: VlmBackend> Layer<B> {
    /// The new tokens `[1, new, hidden]` of a sequence whose earlier ones are in `cache`.
    pub(super) fn forward(
        &self,
        x: Tensor<B, 3>,
        index: usize,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        let (q, [k, v]) = self.self_attn.project(self.input_layernorm.forward(x.clone()), index, rope, cache);
        let mask = causal(q.dims()[2]);
        self.finish(x, self.self_attn.attend([q, k, v], mask))
    }

    /// The same as the model's last layer, of which only the last token's state is wanted, `[1, 1, hidden]`: the others leave their keys
    /// and values, and no more.
    pub(super) fn forward_last(
        &self,
        x: Tensor<B, 3>,
        index: usize,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(x.clone());
        let products = self.self_attn.products(last_token(normed.clone()), normed);
        let (q, [k, v]) = self.self_attn.split(products, [&rope.last(), rope]);
        let [k, v] = cache.append(index, k, v).map(|x| self.self_attn.repeat(x));
        self.finish(last_token(x), self.self_attn.attend([q, k, v], Mask::None))
    }

    /// The same for the new tokens of several sequences, one sequence after another; as the `last` layer for each one's last token only,
    /// `[1, sequences, hidden]`.
    pub(super) fn forward_each(
        &self,
        x: Tensor<B, 3>,
        index: usize,
        ropes: &[RopeRows<B>],
        parts: &mut [Part<B>],
        last: bool,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(x.clone());
        let (wanted, queries) = if last {
            let mut rows = 0;
            let ends = parts.iter().map(|part| {
                rows += part.new;
                rows - 1
            });
            let ends: Vec<usize> = ends.collect();
            let pick = |x: Tensor<B, 3>| select(x.squeeze_dim::<2>(0), ends.clone()).unsqueeze::<3>();
            (pick(x), pick(normed.clone()))
        } else {
            (x, normed.clone())
        };
        let [q, k, v] = self.self_attn.products(queries, normed);
        let (mut attended, mut row) = (Vec::new(), 0);
        for (i, rope) in ropes.iter().enumerate() {
            let (before, rest) = parts.split_at_mut(i);
            let Part { cache, new, shared } = &mut rest[0];
            if let (Some(before), 1..) = (before.last(), *shared) {
                cache.take_over(index, before.cache, *shared);
            }
            let [k, v] = [&k, &v].map(|x| x.clone().narrow(1, row, *new));
            let (q, [k, v]) = if last {
                self.self_attn.split([q.clone().narrow(1, i, 1), k, v], [&rope.last(), rope])
            } else {
                self.self_attn.split([q.clone().narrow(1, row, *new), k, v], [rope; 2])
            };
            let mask = causal(q.dims()[2]);
            let [k, v] = cache.append(index, k, v).map(|x| self.self_attn.repeat(x));
            attended.push(self.self_attn.attend([q, k, v], mask));
            row += *new;
        }
        self.finish(wanted, Tensor::cat(attended, 1))
    }

    /// The same for whole sequences `[batch, tokens, hidden]`, without a cache; with `rows`, counted through all sequences, only the
    /// states of those tokens, `[1, rows, hidden]`.
    pub(super) fn forward_all(
        &self,
        x: Tensor<B, 3>,
        rope: &RopeRows<B>,
        mask: Mask,
        rows: Option<&Vec<usize>>,
    ) -> Tensor<B, 3> {
        let normed = self.input_layernorm.forward(x.clone());
        let tokens = x.dims()[1];
        // No token before the first that is wanted needs a query.
        let first = rows.map_or(0, |rows| rows.iter().map(|row| row % tokens).min().unwrap_or_default());
        let products = self.self_attn.products(normed.clone().narrow(1, first, tokens - first), normed);
        let (q, new) = self.self_attn.split(products, [&rope.tail(first), rope]);
        let [k, v] = new.map(|x| self.self_attn.repeat(x));
        let attended = self.self_attn.attend([q, k, v], mask);
        match rows {
            Some(rows) => {
                let pick = |x: Tensor<B, 3>, rows| select(x.flatten::<2>(0, 1), rows).unsqueeze::<3>();
                let queries = rows.iter().map(|row| row / tokens * (tokens - first) + row % tokens - first).collect();
                self.finish(pick(x, rows.clone()), pick(attended, queries))
            }
            None => self.finish(x, attended),
        }
    }

    /// The same as [`Self::forward`], and the attention that the last position pays to all, `[heads, positions]` in f32.
    pub(super) fn forward_noting(
        &self,
        x: Tensor<B, 3>,
        index: usize,
        rope: &RopeRows<B>,
        cache: &mut KvCache<B>,
    ) -> (Tensor<B, 3>, Tensor<B, 2>) {
        let (q, [k, v]) = self.self_attn.project(self.input_layernorm.forward(x.clone()), index, rope, cache);
        let [_, heads, len, head_dim] = k.dims();
        let last = q.clone().narrow(2, q.dims()[2] - 1, 1).cast(DType::F32) * (head_dim as f64).powf(-0.5);
        let scores = B::product(last, k.clone().cast(DType::F32).swap_dims(2, 3));
        let row = activation::softmax(scores, 3).reshape([heads, len]);
        let mask = causal(q.dims()[2]);
        (self.finish(x, self.self_attn.attend([q, k, v], mask)), row)
    }

    /// What comes after attention.
    pub(super) fn finish(&self, x: Tensor<B, 3>, attended: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = x + self.self_attn.o_proj.forward(attended);
        x.clone() + self.mlp.forward(self.post_attention_layernorm.forward(x))
    }
}

impl<B: VlmBackend> Mlp<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        self.down_proj.forward(B::gate(self.gate_proj.forward(x.clone()), self.up_proj.forward(x)))
    }
}
