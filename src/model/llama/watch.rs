//! The attention that a prompt pays to some of its tokens, layer by layer, without a whole matrix of it.

use std::ops::Range;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData, activation};
use secateur_backends::{Mask, VlmBackend};

use super::Llama;
use crate::model::{LlamaConfig, rope::Rope};

/// Queries whose rows are there at a time.
const ROWS: usize = 64;

impl<B: VlmBackend> Llama<B> {
    /// What the queries of each span of `embeds` `[1, tokens, hidden]` pay together to each token of `columns`, averaged over
    /// heads: `[layer][span][column]`, of the first `layers` layers.
    pub fn watch(
        &self,
        config: &LlamaConfig,
        embeds: Tensor<B, 3>,
        columns: &[usize],
        spans: &[Range<usize>],
        layers: usize,
    ) -> Vec<Vec<Vec<f32>>> {
        let rope = Rope::new(config, embeds.dims()[1], &embeds.device()).rows(0, embeds.dims()[1], embeds.dtype());
        let columns: Vec<i32> = columns.iter().map(|&column| column as i32).collect();
        let columns = TensorData::new(columns.clone(), [columns.len()]);
        let columns = Tensor::<B, 1, Int>::from_data(columns, &embeds.device());
        let mut x = embeds;
        let mut found = Vec::new();
        for layer in self.layers.iter().take(layers) {
            let (q, new) = layer.self_attn.heads(layer.input_layernorm.forward(x.clone()), &rope);
            let [k, v] = new.map(|x| layer.self_attn.repeat(x));
            found.push(spans.iter().map(|span| paid(&q, &k, span, &columns)).collect());
            x = layer.finish(x, layer.self_attn.attend([q, k, v], Mask::Causal));
        }
        found
    }
}

/// What the queries `span` pay together to each of `columns`.
fn paid<B: VlmBackend>(
    q: &Tensor<B, 4>,
    k: &Tensor<B, 4>,
    span: &Range<usize>,
    columns: &Tensor<B, 1, Int>,
) -> Vec<f32> {
    let [_, heads, length, head_dim] = k.dims();
    let keys = k.clone().cast(DType::F32).swap_dims(2, 3);
    let mut sums = vec![0.0; columns.dims()[0]];
    for from in span.clone().step_by(ROWS) {
        let rows = ROWS.min(span.end - from);
        let queries = q.clone().narrow(2, from, rows).cast(DType::F32) * (head_dim as f64).powf(-0.5);
        let hidden = Tensor::<B, 4, Bool>::tril_mask([1, 1, rows, length], from as i64, &q.device());
        let hidden = hidden.expand([1, heads, rows, length]);
        let attention = activation::softmax(B::product(queries, keys.clone()).mask_fill(hidden, f32::NEG_INFINITY), 3);
        let paid = attention.select(3, columns.clone()).mean_dim(1).sum_dim(2);
        let paid = paid.into_data().convert::<f32>();
        sums.iter_mut().zip(paid.iter::<f32>()).for_each(|(sum, paid)| *sum += paid);
    }
    sums
}
