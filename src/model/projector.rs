//! From the tower's features to the language model's embeddings: `mlp2x_gelu`.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{Linear, layers::Rounds};

/// Two layers with an exact GELU between them.
#[derive(Module, Debug)]
pub struct Projector<B: Backend> {
    linear_1: Linear<B>,
    linear_2: Linear<B>,
}

impl<B: VlmBackend> Projector<B> {
    /// An unfilled projector.
    pub fn new(vision: usize, hidden: usize, device: &B::Device) -> Self {
        Self {
            linear_1: Linear::new(vision, hidden, true, device),
            linear_2: Linear::new(hidden, hidden, true, device),
        }
    }

    /// # Shapes
    /// - `features`: `[crops, patches, vision]`
    /// - result: `[crops, patches, hidden]`
    pub fn forward(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.linear_2.forward(B::exact_gelu(self.linear_1.forward(features)))
    }
}

impl<B: Backend> Rounds for Projector<B> {
    fn round(&mut self) {
        self.linear_1.round();
        self.linear_2.round();
    }
}
