//! The CLIP vision transformer, up to the layer that LLaVA reads.

use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor, activation, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{
    ClipVisionConfig, LayerNorm, Linear,
    layers::{linear, unfilled},
};
use crate::pruner::{ClsAttention, Needs};

/// `CLIPVisionModel` without its last norm, which no LLaVA reads.
#[derive(Module, Debug)]
pub struct ClipVision<B: Backend> {
    embeddings: Embeddings<B>,
    // The name is misspelt in every CLIP checkpoint.
    pre_layrnorm: LayerNorm<B>,
    encoder: Encoder<B>,
    patch_size: usize,
    read_layers: usize,
}

/// What the tower saw.
#[derive(Clone, Debug)]
pub struct Sight<B: Backend> {
    /// Hidden states of the selected layer without `[CLS]`, `[crops, patches, hidden]`.
    pub features: Tensor<B, 3>,
    /// The `[CLS]` rows of the attention without the `[CLS]` column, `[layers, crops, heads, patches]`, for the layers
    /// that were asked for.
    pub cls_attention: Option<Tensor<B, 4>>,
}

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    class_embedding: Param<Tensor<B, 1>>,
    patch_embedding: PatchEmbedding<B>,
    position_embedding: PositionEmbedding<B>,
}

#[derive(Module, Debug)]
struct PatchEmbedding<B: Backend> {
    /// `[hidden, 3, patch, patch]`.
    weight: Param<Tensor<B, 4>>,
}

#[derive(Module, Debug)]
struct PositionEmbedding<B: Backend> {
    /// `[1 + patches, hidden]`.
    weight: Param<Tensor<B, 2>>,
}

#[derive(Module, Debug)]
struct Encoder<B: Backend> {
    layers: Vec<Layer<B>>,
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    self_attn: Attention<B>,
    layer_norm1: LayerNorm<B>,
    mlp: Mlp<B>,
    layer_norm2: LayerNorm<B>,
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
}

impl<B: VlmBackend> ClipVision<B> {
    /// An unfilled tower whose features are read after `read_layers` layers.
    pub fn new(config: &ClipVisionConfig, read_layers: usize, device: &B::Device) -> Self {
        let hidden = config.hidden_size;
        let norm = || LayerNorm::new(hidden, config.layer_norm_eps, device);
        let square = || Linear::new(hidden, hidden, true, device);
        let layer = |_| Layer {
            self_attn: Attention {
                q_proj: square(),
                k_proj: square(),
                v_proj: square(),
                out_proj: square(),
                heads: config.num_attention_heads,
            },
            layer_norm1: norm(),
            mlp: Mlp {
                fc1: Linear::new(hidden, config.intermediate_size, true, device),
                fc2: Linear::new(config.intermediate_size, hidden, true, device),
            },
            layer_norm2: norm(),
        };
        let patch = config.patch_size;
        Self {
            embeddings: Embeddings {
                class_embedding: unfilled([hidden], device),
                patch_embedding: PatchEmbedding { weight: unfilled([hidden, 3, patch, patch], device) },
                position_embedding: PositionEmbedding { weight: unfilled([1 + config.patches(), hidden], device) },
            },
            pre_layrnorm: norm(),
            encoder: Encoder { layers: (0..config.num_hidden_layers).map(layer).collect() },
            patch_size: patch,
            read_layers,
        }
    }

    /// Runs the layers up to the selected one, and computes what `needs` names on the way.
    ///
    /// # Shapes
    /// - `pixels`: `[crops, 3, side, side]`
    pub fn encode(&self, pixels: Tensor<B, 4>, needs: Needs) -> Sight<B> {
        let mut x = self.pre_layrnorm.forward(self.embed(pixels));
        let mut features = x.clone();
        let mut rows = Vec::new();
        // Layers above the selected one run only for their attention.
        let run = if needs.cls_attention == ClsAttention::All { self.encoder.layers.len() } else { self.read_layers };
        for (i, layer) in self.encoder.layers[..run].iter().enumerate() {
            let selected = i + 1 == self.read_layers;
            let wants_row = match needs.cls_attention {
                ClsAttention::None => false,
                ClsAttention::Selected => selected,
                ClsAttention::All => true,
            };
            let (next, row) = layer.forward(x, wants_row);
            x = next;
            rows.extend(row);
            if selected {
                features = x.clone();
            }
        }
        let [_, tokens, _] = features.dims();
        Sight {
            features: features.narrow(1, 1, tokens - 1),
            cls_attention: (!rows.is_empty()).then(|| Tensor::stack(rows, 0)),
        }
    }

    /// `[crops, 3, side, side]` → `[crops, 1 + patches, hidden]`.
    fn embed(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let [crops, channels, side, _] = pixels.dims();
        let (patch, grid) = (self.patch_size, side / self.patch_size);
        let dtype = pixels.dtype();
        let cut = pixels.slice([0..crops, 0..channels, 0..grid * patch, 0..grid * patch]);
        // A convolution whose windows do not overlap is a product with the flattened windows.
        let windows = cut
            .reshape([crops, channels, grid, patch, grid, patch])
            .permute([0, 2, 4, 1, 3, 5])
            .reshape([crops * grid * grid, channels * patch * patch]);
        let weight = self.embeddings.patch_embedding.weight.val();
        let hidden = weight.dims()[0];
        let patches = linear(windows, weight.reshape([hidden, channels * patch * patch]));
        let patches = patches.reshape([crops, grid * grid, hidden]);
        let class = self.embeddings.class_embedding.val().reshape([1, 1, hidden]).expand([crops, 1, hidden]);
        let positions = self.embeddings.position_embedding.weight.val().cast(dtype).unsqueeze();
        Tensor::cat(vec![class, patches], 1) + positions
    }
}

impl<B: VlmBackend> Layer<B> {
    /// `x` `[crops, tokens, hidden]` → the same, and the `[CLS]` row `[crops, heads, patches]` if wanted.
    fn forward(&self, x: Tensor<B, 3>, wants_row: bool) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
        let (attended, row) = self.self_attn.forward(self.layer_norm1.forward(x.clone()), wants_row);
        let x = x + attended;
        let inner = quick_gelu(self.mlp.fc1.forward(self.layer_norm2.forward(x.clone())));
        (x + self.mlp.fc2.forward(inner), row)
    }
}

impl<B: VlmBackend> Attention<B> {
    fn forward(&self, x: Tensor<B, 3>, wants_row: bool) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
        let [crops, tokens, hidden] = x.dims();
        let head_dim = hidden / self.heads;
        // [crops, tokens, hidden] → [crops, heads, tokens, head_dim]
        let split = |x: Tensor<B, 3>| x.reshape([crops, tokens, self.heads, head_dim]).swap_dims(1, 2);
        let q = split(self.q_proj.forward(x.clone()));
        let k = split(self.k_proj.forward(x.clone()));
        let v = split(self.v_proj.forward(x));
        let row = wants_row.then(|| cls_row(q.clone(), k.clone()));
        let attended = B::attend(q, k, v, false);
        (self.out_proj.forward(attended.swap_dims(1, 2).reshape([crops, tokens, hidden])), row)
    }
}

/// The attention that `[CLS]` pays to every patch, `[crops, heads, patches]` in f32: one row, not the whole matrix.
/// The softmax runs over `[CLS]` too, which is then left out, so a row sums to less than 1.
fn cls_row<B: Backend>(q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 3> {
    let [crops, heads, tokens, head_dim] = k.dims();
    let q = q.narrow(2, 0, 1) * (head_dim as f64).powf(-0.5);
    let scores = q.matmul(k.swap_dims(2, 3)).cast(DType::F32);
    activation::softmax(scores, 3).narrow(3, 1, tokens - 1).reshape([crops, heads, tokens - 1])
}

/// `x · σ(1.702·x)`.
fn quick_gelu<B: Backend>(x: Tensor<B, 3>) -> Tensor<B, 3> {
    x.clone() * activation::sigmoid(x * 1.702)
}
