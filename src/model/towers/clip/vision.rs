//! The CLIP vision transformer, up to the layer that LLaVA reads; with attention over time, LanguageBind's for videos.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};
use secateur_backends::{Mask, VlmBackend, operations::linear};

use super::{
    ClipVisionConfig,
    encoder::{Encoder, Layer, Note, Sizes},
};
use crate::{
    model::{Build, LayerNorm, blocks::unfilled},
    pruner::{ClsAttention, Needs},
    tensor::is_finite,
};

/// The vision tower: `CLIPVisionModel` without its last norm, which no LLaVA reads.
#[derive(Module, Debug)]
pub struct ClipVision<B: Backend> {
    embeddings: Embeddings<B>,
    // The name is misspelt in every CLIP checkpoint.
    pre_layrnorm: LayerNorm<B>,
    encoder: Encoder<B>,
    patch_size: usize,
    vision_feature_layer: usize,
}

/// The vision tower's output.
#[derive(Clone, Debug)]
pub struct VisionOutput<B: Backend> {
    /// Hidden states of the selected layer without `[CLS]`, `[crops, patches, hidden]`.
    pub features: Tensor<B, 3>,
    /// Hidden state of `[CLS]` in the selected layer, `[crops, 1, hidden]`; `None` in a tower without it.
    pub class: Option<Tensor<B, 3>>,
    /// The `[CLS]` rows of the attention without the `[CLS]` column, `[layers, crops, heads, patches]`, for the layers that were asked for. In a tower
    /// without `[CLS]` it is the attention that tokens receive from all others, averaged over heads, in the last layer.
    pub cls_attention: Option<Tensor<B, 4>>,
    /// The selected layer's keys without `[CLS]`, averaged over heads, `[crops, patches, head_dim]`, if asked for.
    pub keys: Option<Tensor<B, 3>>,
    /// The number of the selected layer, from 1.
    pub layer: usize,
}

impl<B: Backend> VisionOutput<B> {
    /// Whether the features and all intermediate results are finite.
    pub(in crate::model) fn is_finite(&self) -> bool {
        is_finite(&self.features)
            && self.class.as_ref().is_none_or(is_finite)
            && self.cls_attention.as_ref().is_none_or(is_finite)
            && self.keys.as_ref().is_none_or(is_finite)
    }
}

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    class_embedding: Param<Tensor<B, 1>>,
    patch_embedding: PatchEmbedding<B>,
    position_embedding: PositionEmbedding<B>,
}

#[derive(Module, Debug)]
struct PatchEmbedding<B: Backend> {
    /// The convolution's weight, `[hidden, 3, patch, patch]`.
    weight: Param<Tensor<B, 4>>,
}

#[derive(Module, Debug)]
struct PositionEmbedding<B: Backend> {
    /// The embedding of each position, `[1 + patches, hidden]`.
    weight: Param<Tensor<B, 2>>,
}

impl<B: VlmBackend> ClipVision<B> {
    /// An unfilled tower whose features are read after `vision_feature_layer` layers.
    pub fn new(config: &ClipVisionConfig, vision_feature_layer: usize, build: Build<B>) -> Self {
        let device = build.device;
        let (hidden, patch) = (config.hidden_size, config.patch_size);
        let sizes = Sizes {
            hidden,
            inner: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            quick_gelu: config.quick_gelu(),
            frames: config.add_time_attn.then_some(config.num_frames),
        };
        Self {
            embeddings: Embeddings {
                class_embedding: unfilled([hidden], device),
                patch_embedding: PatchEmbedding { weight: unfilled([hidden, 3, patch, patch], device) },
                position_embedding: PositionEmbedding {
                    weight: unfilled([1 + config.grid().tokens(), hidden], device),
                },
            },
            pre_layrnorm: LayerNorm::new(hidden, config.layer_norm_eps, device),
            encoder: Encoder::new(sizes, build),
            patch_size: patch,
            vision_feature_layer,
        }
    }

    /// Runs the layers up to the selected one, and computes what `needs` names on the way.
    ///
    /// # Shapes
    /// - `pixels`: `[crops, 3, side, side]`
    pub fn encode(&self, pixels: Tensor<B, 4>, needs: Needs) -> VisionOutput<B> {
        let mut x = self.pre_layrnorm.forward(self.embed(pixels));
        let mut features = x.clone();
        let (mut rows, mut keys) = (Vec::new(), None);
        // Layers above the selected one run only for their attention.
        let run = if needs.cls_attention == ClsAttention::All {
            self.encoder.layers.len()
        } else {
            self.vision_feature_layer
        };
        for (i, layer) in self.encoder.layers[..run].iter().enumerate() {
            let selected = i + 1 == self.vision_feature_layer;
            let cls_row = match needs.cls_attention {
                ClsAttention::None => false,
                ClsAttention::Selected => selected,
                ClsAttention::All => true,
            };
            let (next, noted) = layer.forward(x, Mask::None, Note { cls_row, keys: selected && needs.keys });
            x = next;
            rows.extend(noted.cls_row);
            if selected {
                features = x.clone();
                keys = noted.keys;
            }
        }
        let [_, tokens, _] = features.dims();
        VisionOutput {
            class: Some(features.clone().narrow(1, 0, 1)),
            features: features.narrow(1, 1, tokens - 1),
            cls_attention: (!rows.is_empty()).then(|| Tensor::stack(rows, 0)),
            keys,
            layer: self.vision_feature_layer,
        }
    }

    /// Runs the layers one by one, and names the first whose result is not finite.
    pub(in crate::model) fn first_overflow(&self, pixels: Tensor<B, 4>) -> Option<String> {
        let mut x = self.embed(pixels);
        if !is_finite(&x) {
            return Some("embeddings.".to_owned());
        }
        x = self.pre_layrnorm.forward(x);
        if !is_finite(&x) {
            return Some("pre_layrnorm.".to_owned());
        }
        self.encoder.layers.iter().enumerate().find_map(|(i, layer)| {
            x = layer.forward(x.clone(), Mask::None, Note::default()).0;
            (!is_finite(&x)).then(|| format!("encoder.layers.{i}."))
        })
    }

    /// The hidden states of the selected layer, `[crops, 1 + patches, hidden]` with `[CLS]` first, and `[CLS]` after the last layer,
    /// `[crops, 1, hidden]`, both for training.
    pub fn features_and_class(&self, pixels: Tensor<B, 4>) -> [Tensor<B, 3>; 2] {
        let run = |x, layer: &Layer<B>| layer.forward(x, Mask::None, Note::default()).0;
        let (read, above) = self.encoder.layers.split_at(self.vision_feature_layer);
        let features = read.iter().fold(self.pre_layrnorm.forward(self.embed(pixels)), run);
        let class = match above.split_last() {
            Some((last, between)) => last.forward_class(between.iter().fold(features.clone(), run)),
            None => features.clone().narrow(1, 0, 1),
        };
        [features, class]
    }

    /// A tower for a part of the grid, `size` patches wide and high from (`row`, `column`) on: it reads images of that part alone, each patch at the
    /// position that it has in the whole grid. It shares this tower's weights, and gradients too.
    pub fn window(&self, grid: usize, [row, column]: [usize; 2], size: usize) -> Self {
        let mut part = self.clone();
        let weight = self.embeddings.position_embedding.weight.val();
        let patches = (row..row + size).flat_map(|y| (column..column + size).map(move |x| (1 + y * grid + x) as i32));
        let rows: Vec<i32> = std::iter::once(0).chain(patches).collect();
        let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [1 + size * size]), &weight.device());
        part.embeddings.position_embedding.weight = Param::initialized(ParamId::new(), weight.select(0, rows));
        part
    }

    /// Embeds pixels: `[crops, 3, side, side]` → `[crops, 1 + patches, hidden]`.
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
        let patches = linear(windows, weight.reshape([hidden, channels * patch * patch]), false);
        let patches = patches.reshape([crops, grid * grid, hidden]);
        let class = self.embeddings.class_embedding.val().reshape([1, 1, hidden]).expand([crops, 1, hidden]);
        let positions = self.embeddings.position_embedding.weight.val().cast(dtype).unsqueeze();
        Tensor::cat(vec![class, patches], 1) + positions
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use secateur_backends::Flex;

    use super::*;
    use crate::model::blocks::testing::{Noise, difference};

    #[test]
    fn training_sees_what_the_tower_sees() {
        let device = Default::default();
        let config = ClipVisionConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 3,
            num_attention_heads: 2,
            image_size: 8,
            patch_size: 4,
            ..Default::default()
        };
        let pixels = Tensor::<Flex, 4>::random([2, 3, 8, 8], Distribution::Normal(0.0, 1.0), &device);
        let whole = ClipVision::<Flex>::new(&config, 3, Build::exact(&device)).map(&mut Noise);
        let last = whole.encode(pixels.clone(), Needs::default()).class.unwrap();
        for vision_feature_layer in 1..=3 {
            let tower = ClipVision { vision_feature_layer, ..whole.clone() };
            let VisionOutput { class, features: patches, .. } = tower.encode(pixels.clone(), Needs::default());
            let own = class.unwrap();
            let [features, class] = tower.features_and_class(pixels.clone());
            for (found, expected) in [(features, Tensor::cat(vec![own, patches], 1)), (class, last.clone())] {
                let difference = difference(found, expected);
                assert!(difference < 1e-5, "read after {vision_feature_layer} layers: {difference}");
            }
        }
    }
}
