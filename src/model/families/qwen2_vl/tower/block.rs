//! A block of the tower: attention in windows or over the whole item, and an MLP, each behind a norm.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{
    Mask, VlmBackend,
    operations::{attend, attention_received, layer_norm, quick_gelu, rms_norm, silu_mul},
};

use super::{Order, SUMS, positions::Positions};
use crate::model::{
    Build, Linear,
    blocks::unfilled,
    families::qwen2_vl::config::{Generation, NORM_EPS, VisionConfig},
};

/// A block.
#[derive(Module, Debug)]
pub(super) struct Block<B: Backend> {
    norm1: Norm<B>,
    attn: Attention<B>,
    norm2: Norm<B>,
    mlp: Mlp<B>,
}

/// A layer norm in Qwen2-VL; in Qwen2.5-VL, where there is no bias, a norm by root mean square.
#[derive(Module, Debug)]
pub(super) struct Norm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    proj: Linear<B>,
    heads: usize,
}

/// Two products with a quick GELU between them in Qwen2-VL, a gated MLP in Qwen2.5-VL.
#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    gate_proj: Option<Linear<B>>,
    up_proj: Linear<B>,
    down_proj: Linear<B>,
}

/// The intermediate results that a block returns beside its output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) received: bool,
    pub(super) keys: bool,
}

/// The intermediate results that were asked for.
pub(super) struct Noted<B: Backend> {
    /// The attention that each patch receives from all patches of its item, averaged over heads and queries: `[items, patches]`.
    pub(super) received: Option<Tensor<B, 2>>,
    /// The keys behind the rotary positions, averaged over heads: `[items, patches, head_dim]`.
    pub(super) keys: Option<Tensor<B, 3>>,
}

impl<B: VlmBackend> Block<B> {
    /// An unfilled block.
    pub(super) fn new(config: &VisionConfig, build: Build<B>) -> Self {
        let (hidden, inner) = (config.hidden, config.inner);
        let gate = matches!(config.generation, Generation::Qwen2_5).then(|| build.linear(hidden, inner, true));
        Self {
            norm1: Norm::new(config, build),
            attn: Attention {
                q_proj: build.linear(hidden, hidden, true),
                k_proj: build.linear(hidden, hidden, true),
                v_proj: build.linear(hidden, hidden, true),
                proj: build.linear(hidden, hidden, true),
                heads: config.heads,
            },
            norm2: Norm::new(config, build),
            mlp: Mlp {
                gate_proj: gate,
                up_proj: build.linear(hidden, inner, true),
                down_proj: build.linear(inner, hidden, true),
            },
        }
    }

    /// Runs the block on `x` `[items, patches, hidden]`; attention stays in the `windows`, or goes over the whole item without them.
    pub(super) fn forward(
        &self,
        x: Tensor<B, 3>,
        rope: &Positions<B>,
        windows: Option<&Order>,
        wanted: Wanted,
    ) -> (Tensor<B, 3>, Noted<B>) {
        let (attended, noted) = self.attn.forward(self.norm1.forward(x.clone()), rope, windows, wanted);
        let x = x + attended;
        (x.clone() + self.mlp.forward(self.norm2.forward(x)), noted)
    }
}

impl<B: VlmBackend> Norm<B> {
    /// An unfilled norm of the tower's width.
    pub(super) fn new(config: &VisionConfig, build: Build<B>) -> Self {
        let vector = || unfilled([config.hidden], build.device);
        let bias = matches!(config.generation, Generation::Qwen2).then(vector);
        Self { weight: vector(), bias }
    }

    /// Normalises the last axis of `x` `[items, patches, hidden]`.
    pub(super) fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let shape = x.dims();
        let rows = x.reshape([-1, shape[2] as i32]);
        let rows = match &self.bias {
            Some(bias) => layer_norm(rows, self.weight.val(), bias.val(), NORM_EPS),
            None => rms_norm(rows, self.weight.val(), NORM_EPS),
        };
        rows.reshape(shape)
    }
}

impl<B: VlmBackend> Mlp<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let inner = match &self.gate_proj {
            Some(gate) => silu_mul(gate.forward(x.clone()), self.up_proj.forward(x)),
            None => quick_gelu(self.up_proj.forward(x)),
        };
        self.down_proj.forward(inner)
    }
}

impl<B: VlmBackend> Attention<B> {
    fn forward(
        &self,
        x: Tensor<B, 3>,
        rope: &Positions<B>,
        windows: Option<&Order>,
        wanted: Wanted,
    ) -> (Tensor<B, 3>, Noted<B>) {
        let [items, patches, hidden] = x.dims();
        let (heads, bf16) = (self.heads, self.q_proj.is_bf16());
        let split = |part: &Linear<B>| part.forward(x.clone()).reshape([items, patches, heads, hidden / heads]).swap_dims(1, 2);
        let [q, k, v] = [&self.q_proj, &self.k_proj, &self.v_proj].map(split);
        let (q, k) = (rope.apply(q), rope.apply(k));
        let noted = Noted {
            received: wanted.received.then(|| attention_received(q.clone(), k.clone(), bf16)),
            keys: wanted.keys.then(|| k.clone().cast(SUMS).mean_dim(1).squeeze_dim(1)),
        };
        let attended = match windows {
            None => attend([q, k, v], Mask::None, bf16).swap_dims(1, 2).reshape([items, patches, hidden]),
            Some(order) => in_windows([q, k, v], order, bf16),
        };
        (self.proj.forward(attended), noted)
    }
}

/// Attention in each window by itself, of queries, keys and values `[items, heads, patches, head_dim]` in the tower's order: `[items, patches, width]`.
/// Windows are views of an image whose sides they divide, so that nothing is copied.
fn in_windows<B: VlmBackend>(qkv: [Tensor<B, 4>; 3], order: &Order, bf16: bool) -> Tensor<B, 3> {
    let [items, heads, patches, head_dim] = qkv[0].dims();
    // Token by token, as they lie in memory.
    let qkv = qkv.map(|x| x.swap_dims(1, 2));
    let tokens: usize = order.runs.iter().map(|run| run.count * run.tokens).sum();
    let unit = patches / tokens;
    let mut at = 0;
    let parts = order.runs.iter().map(|run| {
        let (count, size) = (run.count, run.tokens * unit);
        let cut = |x: &Tensor<B, 4>| {
            let run = x.clone().narrow(1, at, count * size);
            run.reshape([items * count, size, heads, head_dim]).swap_dims(1, 2)
        };
        let attended = attend(qkv.each_ref().map(cut), Mask::None, bf16);
        at += count * size;
        attended.swap_dims(1, 2).reshape([items, count * size, heads * head_dim])
    });
    let mut parts: Vec<Tensor<B, 3>> = parts.collect();
    if parts.len() == 1 { parts.swap_remove(0) } else { Tensor::cat(parts, 1) }
}
