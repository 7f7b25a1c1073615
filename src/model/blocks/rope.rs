//! Rotary positions as Hugging Face's Llama applies them: the two halves of a head rotate, not adjacent pairs. A position may have three axes, as in
//! Qwen2-VL: time, height and width.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Int, Tensor, TensorData, backend::Backend};
use secateur_backends::{VlmBackend, operations::apply_rope};

use super::Positions;
use crate::model::DecoderConfig;

/// The cosines and sines of a decoder's positions, made when a pass first asks for them. They are in f32: the reference rounds them to the
/// load dtype only when it loads in 16 bits, which changes logits by 1e-3.
#[derive(Debug)]
pub struct Rope<B: Backend> {
    frequencies: Vec<f32>,
    /// The number of frequencies that turn with each axis, where a token's position has three.
    sections: Option<[usize; 3]>,
    device: B::Device,
    /// The cosines and sines of the first positions.
    table: Mutex<Option<RopeRows<B>>>,
}

/// Number of positions that a table starts with.
const FIRST: usize = 1024;

impl<B: Backend> Rope<B> {
    /// Rotary positions for the heads and frequencies of `config`.
    pub fn new(config: &DecoderConfig, device: &B::Device) -> Self {
        let frequencies = config.rope.frequencies(config.head_dim);
        Self { frequencies, sections: config.rope.sections, device: device.clone(), table: Mutex::new(None) }
    }

    /// The device of the tables.
    pub fn device(&self) -> &B::Device {
        &self.device
    }

    /// The cosines and sines of `positions` in `dtype`.
    pub(super) fn rows(&self, positions: &Positions, rows: usize, dtype: DType) -> RopeRows<B> {
        let end = positions.end(rows);
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let table = match table.take().filter(|table| table.len() >= end) {
            Some(table_there) => table.insert(table_there),
            None => table.insert(self.table(end.next_power_of_two().max(FIRST))),
        };
        let picked = match positions {
            Positions::From(first) => table.range(*first, rows),
            Positions::These(list) => table.select(&self.index(list.iter().copied())),
            Positions::Axes(list) => {
                let axes = [0, 1, 2].map(|axis| self.index(list.iter().map(|position| position[axis] as usize)));
                table.select_axes(&axes, self.sections.unwrap_or([self.frequencies.len(), 0, 0]))
            }
        };
        picked.cast(dtype)
    }

    fn index(&self, list: impl Iterator<Item = usize>) -> Tensor<B, 1, Int> {
        let list: Vec<i32> = list.map(|position| position as i32).collect();
        let count = list.len();
        Tensor::from_data(TensorData::new(list, [count]), &self.device)
    }

    /// The cosines and sines of the first `count` positions.
    fn table(&self, count: usize) -> RopeRows<B> {
        let table = |f: fn(f32) -> f32| {
            let row = |position: usize| {
                let half = self.frequencies.iter().map(move |frequency| f(position as f32 * frequency));
                half.clone().chain(half)
            };
            let values: Vec<f32> = (0..count).flat_map(row).collect();
            let shape = [1, 1, count, 2 * self.frequencies.len()];
            Tensor::from_data(TensorData::new(values, shape), (&self.device, DType::F32))
        };
        RopeRows { cos: table(f32::cos), sin: table(f32::sin) }
    }
}

/// The part of the tables that a chunk uses, for all its layers: `[1, 1, rows, head_dim]`.
#[derive(Clone, Debug)]
pub(super) struct RopeRows<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
}

impl<B: Backend> RopeRows<B> {
    fn len(&self) -> usize {
        self.cos.dims()[2]
    }

    fn cast(self, dtype: DType) -> Self {
        Self { cos: self.cos.cast(dtype), sin: self.sin.cast(dtype) }
    }

    fn range(&self, first: usize, count: usize) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().narrow(2, first, count));
        Self { cos, sin }
    }

    /// The cosines and sines of the rows numbered `rows`.
    pub(super) fn select(&self, rows: &Tensor<B, 1, Int>) -> Self {
        let [cos, sin] = [&self.cos, &self.sin].map(|table| table.clone().select(2, rows.clone()));
        Self { cos, sin }
    }

    /// The cosines and sines of positions with three axes: each section of the frequencies, in both halves of a head, is taken from the rows of its
    /// axis.
    fn select_axes(&self, rows: &[Tensor<B, 1, Int>; 3], sections: [usize; 3]) -> Self {
        let half: usize = sections.iter().sum();
        let [cos, sin] = [&self.cos, &self.sin].map(|table| {
            let mut parts = Vec::with_capacity(6);
            for first in [0, half] {
                let mut at = first;
                for (rows, width) in rows.iter().zip(sections).filter(|(_, width)| *width > 0) {
                    parts.push(table.clone().narrow(3, at, width).select(2, rows.clone()));
                    at += width;
                }
            }
            Tensor::cat(parts, 3)
        });
        Self { cos, sin }
    }

    /// The cosines and sines of the rows from `first` on.
    pub(super) fn tail(&self, first: usize) -> Self {
        self.range(first, self.len() - first)
    }
}

impl<B: VlmBackend> RopeRows<B> {
    /// Rotates queries or keys `[batch, heads, rows, head_dim]`.
    pub(super) fn apply(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        apply_rope(x, self.cos.clone(), self.sin.clone())
    }
}
