//! The transformer layers that both sides of CLIP are made of.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, activation, backend::Backend},
};
use secateur_backends::{
    Mask, VlmBackend,
    operations::{attend, exact_gelu, quick_gelu},
};

use crate::model::{Build, LayerNorm, Linear, blocks::unfilled};

/// The sizes of a stack of layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) inner: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) eps: f64,
    /// Whether the MLP's activation is `x · σ(1.702·x)`, and not the exact GELU.
    pub(super) quick_gelu: bool,
    /// Number of frames that attend to each other in every layer; `None` without attention over time.
    pub(super) frames: Option<usize>,
}

/// The stack of layers, `CLIPEncoder`.
#[derive(Module, Debug)]
pub(super) struct Encoder<B: Backend> {
    pub(super) layers: Vec<Layer<B>>,
}

/// A layer, `CLIPEncoderLayer`.
#[derive(Module, Debug)]
pub(super) struct Layer<B: Backend> {
    self_attn: Attention<B>,
    layer_norm1: LayerNorm<B>,
    mlp: Mlp<B>,
    layer_norm2: LayerNorm<B>,
    /// The embedding of each frame's place in time, `[1, frames, hidden]`.
    temporal_embedding: Option<Param<Tensor<B, 3>>>,
    temporal_attn: Option<Attention<B>>,
    temporal_layer_norm1: Option<LayerNorm<B>>,
}

#[derive(Module, Debug)]
struct Attention<B: Backend> {
    q_proj: Linear<B>,
    k_proj: Linear<B>,
    v_proj: Linear<B>,
    out_proj: Linear<B>,
    heads: usize,
}

#[derive(Module, Debug)]
struct Mlp<B: Backend> {
    fc1: Linear<B>,
    fc2: Linear<B>,
    quick_gelu: bool,
}

/// The intermediate results that a layer returns beside its output.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    /// Whether the attention row of `[CLS]` is returned.
    pub(super) cls_row: bool,
    /// Whether the keys are returned.
    pub(super) keys: bool,
}

/// The intermediate results that a layer returned, where `Note` asked for them.
pub(super) struct Noted<B: Backend> {
    /// The attention that `[CLS]` pays to every patch, `[crops, heads, patches]` in f32.
    pub(super) cls_row: Option<Tensor<B, 3>>,
    /// The mean of the patches' keys over heads, `[crops, patches, head_dim]`.
    pub(super) keys: Option<Tensor<B, 3>>,
}

impl<B: VlmBackend> Encoder<B> {
    /// Unfilled layers.
    pub(super) fn new(sizes: Sizes, build: Build<B>) -> Self {
        let device = build.device;
        let norm = || LayerNorm::new(sizes.hidden, sizes.eps, device);
        let square = || build.linear(sizes.hidden, sizes.hidden, true);
        let attention = || Attention {
            q_proj: square(),
            k_proj: square(),
            v_proj: square(),
            out_proj: square(),
            heads: sizes.heads,
        };
        let layer = |_| Layer {
            self_attn: attention(),
            layer_norm1: norm(),
            mlp: Mlp {
                fc1: build.linear(sizes.hidden, sizes.inner, true),
                fc2: build.linear(sizes.inner, sizes.hidden, true),
                quick_gelu: sizes.quick_gelu,
            },
            layer_norm2: norm(),
            temporal_embedding: sizes.frames.map(|frames| unfilled([1, frames, sizes.hidden], device)),
            temporal_attn: sizes.frames.map(|_| attention()),
            temporal_layer_norm1: sizes.frames.map(|_| norm()),
        };
        Self { layers: (0..sizes.layers).map(layer).collect() }
    }
}

impl<B: VlmBackend> Layer<B> {
    /// Runs the layer on `x` `[batch, tokens, hidden]`; returns its output of the same shape, and the intermediate results that `note` asks for. In a
    /// video tower, the batch is the frames of one video.
    pub(super) fn forward(&self, x: Tensor<B, 3>, mask: Mask, note: Note) -> (Tensor<B, 3>, Noted<B>) {
        let x = self.through_time(x);
        let (attended, noted) = self.self_attn.forward(self.layer_norm1.forward(x.clone()), mask, note);
        let x = x + attended;
        (x.clone() + self.mlp.forward(self.layer_norm2.forward(x)), noted)
    }

    /// Runs the layer on `x` `[batch, tokens, hidden]` for the first token's state alone, `[batch, 1, hidden]`.
    pub(super) fn forward_class(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = self.through_time(x);
        let normed = self.layer_norm1.forward(x.clone());
        let heads = self.self_attn.heads(normed.clone().narrow(1, 0, 1), normed);
        let x = x.narrow(1, 0, 1) + self.self_attn.attend(heads, Mask::None);
        x.clone() + self.mlp.forward(self.layer_norm2.forward(x))
    }

    /// Attention over time, LanguageBind's first step of a layer: every token, `[CLS]` included, attends to itself in the other frames.
    fn through_time(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let (Some(attention), Some(norm)) = (&self.temporal_attn, &self.temporal_layer_norm1) else { return x };
        let mut x = x.swap_dims(0, 1);
        // A single frame has no place in time.
        if let Some(embedding) = self.temporal_embedding.as_ref().filter(|_| x.dims()[1] > 1) {
            x = x.clone() + embedding.val().cast(x.dtype());
        }
        let (attended, _) = attention.forward(norm.forward(x.clone()), Mask::None, Note::default());
        (x + attended).swap_dims(0, 1)
    }
}

impl<B: VlmBackend> Mlp<B> {
    fn forward(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let x = self.fc1.forward(x);
        self.fc2.forward(if self.quick_gelu { quick_gelu(x) } else { exact_gelu(x) })
    }
}

impl<B: VlmBackend> Attention<B> {
    fn forward(&self, x: Tensor<B, 3>, mask: Mask, note: Note) -> (Tensor<B, 3>, Noted<B>) {
        let [q, k, v] = self.heads(x.clone(), x);
        let noted = Noted {
            cls_row: note.cls_row.then(|| cls_row(q.clone(), k.clone())),
            keys: note.keys.then(|| mean_keys(k.clone())),
        };
        (self.attend([q, k, v], mask), noted)
    }

    /// Queries of the tokens `queries`, and keys and values of the tokens `keys`: `[batch, tokens, hidden]` → `[batch, heads, tokens, head_dim]`.
    fn heads(&self, queries: Tensor<B, 3>, keys: Tensor<B, 3>) -> [Tensor<B, 4>; 3] {
        [self.q_proj.forward(queries), self.k_proj.forward(keys.clone()), self.v_proj.forward(keys)].map(|x| {
            let [batch, tokens, hidden] = x.dims();
            x.reshape([batch, tokens, self.heads, hidden / self.heads]).swap_dims(1, 2)
        })
    }

    /// The result of attention for the queries, `[batch, queries, hidden]`.
    fn attend(&self, [q, k, v]: [Tensor<B, 4>; 3], mask: Mask) -> Tensor<B, 3> {
        let [batch, heads, tokens, head_dim] = q.dims();
        let attended = attend([q, k, v], mask, self.q_proj.is_bf16());
        self.out_proj.forward(attended.swap_dims(1, 2).reshape([batch, tokens, heads * head_dim]))
    }
}

/// The attention that `[CLS]` pays to every patch, `[crops, heads, patches]` in f32: one row, not the whole matrix.
/// The softmax runs over `[CLS]` too, which is then left out, so a row sums to less than 1.
fn cls_row<B: VlmBackend>(q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 3> {
    let [crops, heads, tokens, head_dim] = k.dims();
    let q = q.narrow(2, 0, 1).cast(DType::F32) * (head_dim as f64).powf(-0.5);
    let scores = B::matmul_f32(q, k.cast(DType::F32).swap_dims(2, 3));
    activation::softmax(scores, 3).narrow(3, 1, tokens - 1).reshape([crops, heads, tokens - 1])
}

/// The patches' keys, averaged over heads: `[crops, patches, head_dim]` in f32.
fn mean_keys<B: Backend>(k: Tensor<B, 4>) -> Tensor<B, 3> {
    let [crops, _, tokens, head_dim] = k.dims();
    k.cast(DType::F32).mean_dim(1).reshape([crops, tokens, head_dim]).narrow(1, 1, tokens - 1)
}
