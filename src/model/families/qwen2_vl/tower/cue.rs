//! The attention that patches receive: what methods rank by in a tower without `[CLS]`.

use burn::tensor::{Tensor, activation};
use secateur_backends::VlmBackend;

use super::SUMS;

/// The number of queries whose attention is held at a time.
const TILE: usize = 128;

/// The attention that each patch receives from all patches of its item, averaged over heads and queries. The matrix of all patches with all patches is
/// never held as a whole.
///
/// # Shapes
/// - `q`, `k`: `[items, heads, patches, head_dim]`
/// - result: `[items, patches]` in f32
pub(super) fn received<B: VlmBackend>(q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 2> {
    let [items, heads, patches, head_dim] = q.dims();
    let q = q.cast(SUMS) * (head_dim as f64).powf(-0.5);
    let k = k.cast(SUMS).swap_dims(2, 3);
    let tiles = (0..patches).step_by(TILE).map(|first| {
        let tile = q.clone().narrow(2, first, TILE.min(patches - first));
        activation::softmax(B::matmul_f32(tile, k.clone()), 3).sum_dim(2)
    });
    let sum = tiles.reduce(|sum, tile| sum + tile).unwrap_or_else(|| Tensor::zeros([items, heads, 1, patches], &k.device()));
    (sum.sum_dim(1) / (heads * patches) as f64).reshape([items, patches])
}
