//! The embedding of tokens, and the types of matrices.

use burn::{
    module::{Module, Param},
    tensor::{DType, Int, Tensor, TensorData, backend::Backend},
};
use secateur_backends::{BlockType, Blocks, VlmBackend};

use crate::model::blocks::{Build, Slot, unfilled};

/// The embeddings of tokens, in floats or in blocks.
#[derive(Module, Debug)]
pub(super) struct Embedding<B: Backend> {
    /// The embedding of each token, `[vocabulary, hidden]`.
    pub(super) weight: Param<Tensor<B, 2>>,
    /// The matrix, where it is in blocks.
    #[module(skip)]
    blocks: Option<Slot>,
}

impl<B: VlmBackend> Embedding<B> {
    pub(super) fn new(shape: [usize; 2], build: Build<B>) -> Self {
        let weight = unfilled(shape, build.device);
        Self { blocks: build.slot(&weight), weight }
    }

    /// The matrix, where it is in blocks.
    pub(super) fn blocks(&self) -> Option<&Blocks> {
        self.blocks.as_ref()?.get()
    }

    /// The rows of `ids`, `[ids, hidden]`.
    pub(super) fn forward(&self, ids: &[u32], device: &B::Device) -> Tensor<B, 2> {
        let Some(blocks) = self.blocks() else {
            let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
            let ids = TensorData::new(ids.clone(), [ids.len()]);
            return self.weight.val().select(0, Tensor::<B, 1, Int>::from_data(ids, device));
        };
        let [_, hidden] = blocks.shape();
        let mut rows = vec![0.0f32; ids.len() * hidden];
        rows.chunks_exact_mut(hidden).zip(ids).for_each(|(to, id)| blocks.unpack_row(*id as usize, to));
        Tensor::from_data(TensorData::new(rows, [ids.len(), hidden]), (device, DType::F32))
    }
}

impl Weights {
    /// The dtype that values are multiplied in where there are many rows.
    pub fn dtype(self) -> DType {
        match self {
            Self::Floats(dtype) => dtype,
            Self::Blocks(_) => DType::F32,
        }
    }
}

/// The type that matrices are kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// Floats.
    Floats(DType),
    /// Blocks of a few bits.
    Blocks(BlockType),
}
