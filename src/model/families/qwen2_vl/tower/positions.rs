//! Rotary positions in rows and columns.

use burn::tensor::{DType, Tensor, TensorData};
use secateur_backends::{VlmBackend, operations::apply_rope};

use super::{Order, VisionConfig};
use crate::image::Grid;

/// The base of the frequencies.
const BASE: f64 = 10_000.0;

/// The cosines and sines of all patches of an item, `[1, 1, patches, head_dim]`.
pub(super) struct Positions<B: VlmBackend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
}

impl<B: VlmBackend> Positions<B> {
    /// Rotates queries or keys `[items, heads, patches, head_dim]`.
    pub(super) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        apply_rope(x, self.cos.clone(), self.sin.clone())
    }
}

/// The positions of an item's patches in the tower's order: a quarter of a head turns with the row, a quarter with the column, and both again.
pub(super) fn positions<B: VlmBackend>(
    grid: Grid,
    order: &Order,
    config: &VisionConfig,
    dtype: DType,
    device: &B::Device,
) -> Positions<B> {
    let head_dim = config.hidden / config.heads;
    let quarter = head_dim / 4;
    // As PyTorch: the exponent, the power and its inverse are each rounded to f32.
    let exponent = |i: usize| f64::from((2 * i) as f32 / (head_dim / 2) as f32);
    let frequencies: Vec<f32> = (0..quarter).map(|i| 1.0 / (BASE.powf(exponent(i)) as f32)).collect();
    let (merge, unit) = (config.merge, config.merge * config.merge);
    let mut angles: Vec<f32> = Vec::with_capacity(grid.tokens() * unit * head_dim);
    for token in order.places(grid.tokens()) {
        for part in 0..unit {
            let row = token / grid.columns * merge + part / merge;
            let column = token % grid.columns * merge + part % merge;
            for axis in [row, column, row, column] {
                angles.extend(frequencies.iter().map(|frequency| axis as f32 * frequency));
            }
        }
    }
    let shape = [1, 1, grid.tokens() * unit, 4 * quarter];
    let table = |f: fn(f32) -> f32| {
        let values: Vec<f32> = angles.iter().copied().map(f).collect();
        Tensor::<B, 4>::from_data(TensorData::new(values, shape), (device, DType::F32)).cast(dtype)
    };
    Positions { cos: table(f32::cos), sin: table(f32::sin) }
}
