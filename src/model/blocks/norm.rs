//! Norms with fields named as in checkpoints, and statistics in f32.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{
    VlmBackend,
    operations::{layer_norm, rms_norm},
};

use super::unfilled;

/// A norm by mean and variance.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// The factor of each feature, `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    /// The term added to each feature, `[features]`.
    pub bias: Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: VlmBackend> LayerNorm<B> {
    /// An unfilled norm.
    pub fn new(features: usize, eps: f64, device: &B::Device) -> Self {
        Self { weight: unfilled([features], device), bias: unfilled([features], device), eps }
    }

    /// Normalises the last axis of `x`.
    ///
    /// # Shapes
    /// - `x`, result: `[…, features]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let shape = x.dims();
        let rows = x.reshape([-1, shape[D - 1] as i32]);
        layer_norm(rows, self.weight.val(), self.bias.val(), self.eps).reshape(shape)
    }
}

/// A norm by root mean square, as `LlamaRMSNorm`.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// The factor of each feature, `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: VlmBackend> RmsNorm<B> {
    /// The device of the weight.
    pub(in crate::model) fn device(&self) -> B::Device {
        self.weight.val().device()
    }

    /// An unfilled norm.
    pub fn new(features: usize, eps: f64, device: &B::Device) -> Self {
        Self { weight: unfilled([features], device), eps }
    }

    /// Normalises the last axis of `x`.
    ///
    /// # Shapes
    /// - `x`, result: `[…, features]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let shape = x.dims();
        let rows = x.reshape([-1, shape[D - 1] as i32]);
        rms_norm(rows, self.weight.val(), self.eps).reshape(shape)
    }
}
