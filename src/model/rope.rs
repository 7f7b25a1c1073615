//! Rotary positions as Hugging Face's Llama applies them: the two halves of a head rotate, not adjacent pairs.

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use secateur_backends::VlmBackend;

use super::LlamaConfig;

/// Cosines and sines of every position, `[positions, head_dim]`, in f32: the reference rounds them to the load
/// dtype only when it loads in 16 bits, which changes logits by 1e-3.
#[derive(Clone, Debug)]
pub(super) struct Rope<B: Backend> {
    cos: Tensor<B, 2>,
    sin: Tensor<B, 2>,
}

impl<B: Backend> Rope<B> {
    pub(super) fn new(config: &LlamaConfig, positions: usize, device: &B::Device) -> Self {
        let half = config.head_dim() / 2;
        let frequency: Vec<f32> =
            (0..half).map(|i| (1.0 / config.rope_theta.powf(i as f64 / half as f64)) as f32).collect();
        let table = |f: fn(f32) -> f32| {
            let values: Vec<f32> = (0..positions)
                .flat_map(|p| {
                    let row: Vec<f32> = frequency.iter().map(|w| f(p as f32 * config.position_scale * w)).collect();
                    [row.clone(), row].concat()
                })
                .collect();
            Tensor::from_data(TensorData::new(values, [positions, 2 * half]), (device, DType::F32))
        };
        Self { cos: table(f32::cos), sin: table(f32::sin) }
    }

    /// The rows of positions `from..from + len` in `dtype`.
    pub(super) fn rows(&self, from: usize, len: usize, dtype: DType) -> RopeRows<B> {
        let rows = |table: &Tensor<B, 2>| table.clone().narrow(0, from, len).cast(dtype).unsqueeze();
        RopeRows { cos: rows(&self.cos), sin: rows(&self.sin) }
    }
}

/// The part of the tables that one forward pass uses, for all its layers.
pub(super) struct RopeRows<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
}

impl<B: VlmBackend> RopeRows<B> {
    /// The rows of some of these positions.
    pub(super) fn select(&self, rows: &Tensor<B, 1, Int>) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().select(2, rows.clone()));
        Self { cos, sin }
    }

    /// The row of the last position.
    pub(super) fn last(&self) -> Self {
        self.tail(self.cos.dims()[2] - 1)
    }

    /// The rows from the `first` on.
    pub(super) fn tail(&self, first: usize) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().narrow(2, first, table.dims()[2] - first));
        Self { cos, sin }
    }

    /// Rotates queries or keys `[1, heads, len, head_dim]`.
    pub(super) fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        B::rotate(x, self.cos.clone(), self.sin.clone())
    }
}
