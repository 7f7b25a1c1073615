//! Training: the gradients of Secateur's own operations.

#[cfg(feature = "train")]
mod autodiff;
#[cfg(feature = "flex")]
mod flex;
mod reference;

use burn::tensor::Tensor;

use crate::{Mask, VlmBackend};

/// A backend on which Secateur's models can be trained: each operation has a gradient with a reference body in plain tensor code.
pub trait Gradients: VlmBackend {
    /// Attention as [`VlmBackend::attend`] in training, where the last bits are not compared with other code.
    fn attend_training(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, mask: Mask) -> Tensor<Self, 4> {
        Self::attend(q, k, v, mask)
    }

    /// The gradients of [`VlmBackend::attend`] with respect to `q`, `k` and `v`, for training; `grad` is the gradient of the result.
    fn attend_backward([q, k, v]: [Tensor<Self, 4>; 3], grad: Tensor<Self, 4>, mask: Mask) -> [Tensor<Self, 4>; 3] {
        reference::attend([q, k, v], grad, mask)
    }

    /// The gradients of [`VlmBackend::silu_mul`] with respect to `gate` and `up`.
    fn silu_mul_backward(inputs: [Tensor<Self, 3>; 2], grad: Tensor<Self, 3>) -> [Tensor<Self, 3>; 2] {
        reference::gate(inputs, grad)
    }

    /// The gradient of [`VlmBackend::quick_gelu`].
    fn quick_gelu_backward(x: Tensor<Self, 3>, grad: Tensor<Self, 3>) -> Tensor<Self, 3> {
        reference::quick_gelu(x, grad)
    }

    /// The gradients of [`VlmBackend::rms_norm_rows`] with respect to `x` and `weight`.
    fn rms_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        grad: Tensor<Self, 2>,
        eps: f64,
    ) -> (Tensor<Self, 2>, Tensor<Self, 1>) {
        reference::rms_norm(x, weight, grad, eps)
    }

    /// The gradients of [`VlmBackend::layer_norm_rows`] with respect to `x`, and to `weight` and `bias`.
    fn layer_norm_backward(
        x: Tensor<Self, 2>,
        weight: Tensor<Self, 1>,
        grad: Tensor<Self, 2>,
        eps: f64,
    ) -> (Tensor<Self, 2>, [Tensor<Self, 1>; 2]) {
        reference::layer_norm(x, weight, grad, eps)
    }
}
