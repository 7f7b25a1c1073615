//! The CLIP text transformer.

use burn::{
    module::{Module, Param},
    tensor::{DType, Int, Tensor, TensorData, backend::Backend},
};
use secateur_backends::{Mask, VlmBackend};

use super::{
    ClipTextConfig,
    encoder::{Encoder, Note, Sizes},
};
use crate::{
    model::{Build, LayerNorm, blocks::unfilled},
    text::Segment,
};

/// CLIP's text transformer, `CLIPTextTransformer`.
#[derive(Module, Debug)]
pub struct ClipText<B: Backend> {
    embeddings: Embeddings<B>,
    encoder: Encoder<B>,
    final_layer_norm: LayerNorm<B>,
}

#[derive(Module, Debug)]
struct Embeddings<B: Backend> {
    token_embedding: Embedding<B>,
    position_embedding: Embedding<B>,
}

#[derive(Module, Debug)]
struct Embedding<B: Backend> {
    /// The rows of the embedding, `[rows, hidden]`.
    weight: Param<Tensor<B, 2>>,
}

impl<B: VlmBackend> ClipText<B> {
    /// An unfilled tower.
    pub fn new(config: &ClipTextConfig, build: Build<B>) -> Self {
        let device = build.device;
        let hidden = config.hidden_size;
        let sizes = Sizes {
            hidden,
            inner: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            eps: config.layer_norm_eps,
            quick_gelu: true,
            frames: None,
        };
        let embedding = |rows| Embedding { weight: unfilled([rows, hidden], device) };
        Self {
            embeddings: Embeddings {
                token_embedding: embedding(config.vocab_size),
                position_embedding: embedding(config.max_position_embeddings),
            },
            encoder: Encoder::new(sizes, build),
            final_layer_norm: LayerNorm::new(hidden, config.layer_norm_eps, device),
        }
    }

    /// The hidden state of every token in f32, `[segments, tokens, hidden]`.
    ///
    /// The mask is causal and the zeros that fill the last segment stand at its end, so no real token sees them: the
    /// official padding mask changes nothing that is read.
    pub fn hidden(&self, segments: &[Segment]) -> Tensor<B, 3> {
        let weight = self.embeddings.token_embedding.weight.val();
        let (count, length) = (segments.len(), segments.first().map_or(0, |segment| segment.ids.len()));
        let ids: Vec<i32> = segments.iter().flat_map(|segment| segment.ids.iter().map(|&id| id as i32)).collect();
        let ids = Tensor::<B, 1, Int>::from_data(TensorData::new(ids, [count * length]), &weight.device());
        let hidden = weight.dims()[1];
        let tokens = weight.select(0, ids).cast(DType::F32).reshape([count, length, hidden]);
        let positions = self.embeddings.position_embedding.weight.val().narrow(0, 0, length).cast(DType::F32);
        let mut x = tokens + positions.unsqueeze();
        for layer in &self.encoder.layers {
            x = layer.forward(x, Mask::Causal, Note::default()).0;
        }
        self.final_layer_norm.forward(x)
    }

    /// The hidden state that stands for each segment, `[segments, hidden]`.
    pub fn pooled(&self, segments: &[Segment]) -> Tensor<B, 2> {
        let hidden = self.hidden(segments);
        let [count, length, width] = hidden.dims();
        let rows: Vec<i32> = segments.iter().enumerate().map(|(i, s)| (i * length + s.pool) as i32).collect();
        let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &hidden.device());
        hidden.reshape([count * length, width]).select(0, rows)
    }
}
