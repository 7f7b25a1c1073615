//! The merger, from the patches of a token to an embedding of the decoder.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{VlmBackend, operations::exact_gelu};

use super::block::Norm;
use crate::model::{Build, Linear, families::qwen2_vl::config::VisionConfig};

/// A norm of each patch, then two products of all patches of a token, with an exact GELU between them.
#[derive(Module, Debug)]
pub(in crate::model::families::qwen2_vl) struct Merger<B: Backend> {
    ln_q: Norm<B>,
    linear_1: Linear<B>,
    linear_2: Linear<B>,
}

impl<B: VlmBackend> Merger<B> {
    /// An unfilled merger to embeddings of the width `hidden`.
    pub(in crate::model::families::qwen2_vl) fn new(config: &VisionConfig, hidden: usize, build: Build<B>) -> Self {
        let width = config.hidden * config.merge * config.merge;
        Self {
            ln_q: Norm::new(config, build),
            linear_1: build.linear(width, width, true),
            linear_2: build.linear(width, hidden, true),
        }
    }

    /// Merges `unit` patches after another to one token.
    ///
    /// # Shapes
    /// - `x`: `[items, tokens · unit, width]`
    /// - result: `[items, tokens, hidden]`
    pub(super) fn forward(&self, x: Tensor<B, 3>, unit: usize) -> Tensor<B, 3> {
        let [items, patches, width] = x.dims();
        let x = self.ln_q.forward(x).reshape([items, patches / unit, unit * width]);
        self.linear_2.forward(exact_gelu(self.linear_1.forward(x)))
    }
}
