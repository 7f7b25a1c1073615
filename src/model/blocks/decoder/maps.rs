//! Attention maps: who pays attention to which tokens, layer by layer, in tiles of queries.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, activation};
use secateur_backends::VlmBackend;

use super::{attention::scores, probe::Probe};

/// Number of queries whose attention rows are in memory at a time.
const ROWS: usize = 64;

/// The attention that the queries of each span pay together to each token of `columns`, averaged over heads.
pub(super) struct Maps<'a, B: VlmBackend> {
    pub(super) columns: Tensor<B, 1, Int>,
    pub(super) spans: &'a [Range<usize>],
    /// The number of layers that run and are mapped.
    pub(super) layers: usize,
    /// The attention found so far, `[layer][span][column]`.
    pub(super) found: Vec<Vec<Vec<f32>>>,
}

impl<B: VlmBackend> Probe<B> for Maps<'_, B> {
    fn layers(&self, all: usize) -> usize {
        self.layers.min(all)
    }

    fn attention(&mut self, _layer: usize, q: &Tensor<B, 4>, k: &Tensor<B, 4>) {
        self.found.push(self.spans.iter().map(|span| paid(q, k, span, &self.columns)).collect());
    }
}

/// The attention that the queries `span` pay together to each token of `columns`, averaged over heads.
fn paid<B: VlmBackend>(
    q: &Tensor<B, 4>,
    k: &Tensor<B, 4>,
    span: &Range<usize>,
    columns: &Tensor<B, 1, Int>,
) -> Vec<f32> {
    let [_, heads, length, _] = q.dims();
    let mut sums = vec![0.0; columns.dims()[0]];
    for from in span.clone().step_by(ROWS) {
        let rows = ROWS.min(span.end - from);
        let hidden = Tensor::<B, 4, Bool>::tril_mask([1, 1, rows, length], from as i64, &q.device());
        let hidden = hidden.expand([1, heads, rows, length]);
        let scores = scores(q.clone().narrow(2, from, rows), k).mask_fill(hidden, f32::NEG_INFINITY);
        let paid = activation::softmax(scores, 3).select(3, columns.clone()).mean_dim(1).sum_dim(2);
        let paid = paid.into_data().convert::<f32>();
        sums.iter_mut().zip(paid.iter::<f32>()).for_each(|(sum, paid)| *sum += paid);
    }
    sums
}
