//! The first part of a decoder whose result is not finite.

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::probe::Probe;
use crate::tensor::is_finite;

/// The path of the weights of the first part whose result is not finite.
#[derive(Default)]
pub(super) struct Overflow {
    pub(super) path: Option<String>,
}

impl<B: VlmBackend> Probe<B> for Overflow {
    fn result(&mut self, layer: usize, part: &'static str, x: &Tensor<B, 3>) {
        if self.path.is_none() && !is_finite(x) {
            self.path = Some(format!("layers.{layer}.{part}"));
        }
    }
}
