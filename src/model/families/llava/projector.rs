//! The projector from the tower's features to the language model's embeddings, `mlp2x_gelu`.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{VlmBackend, operations::exact_gelu};

use crate::model::{Build, Linear};

/// The projector: two linear layers with an exact GELU between them.
#[derive(Module, Debug)]
pub struct Projector<B: Backend> {
    linear_1: Linear<B>,
    linear_2: Linear<B>,
}

impl<B: VlmBackend> Projector<B> {
    /// An unfilled projector.
    pub fn new(vision: usize, hidden: usize, build: Build<B>) -> Self {
        Self {
            linear_1: build.linear(vision, hidden, true),
            linear_2: build.linear(hidden, hidden, true),
        }
    }

    /// Projects tower features to embeddings.
    ///
    /// # Shapes
    /// - `features`: `[crops, patches, vision]`
    /// - result: `[crops, patches, hidden]`
    pub fn forward(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.linear_2.forward(exact_gelu(self.linear_1.forward(features)))
    }
}
