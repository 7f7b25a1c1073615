//! Products with weights as in checkpoint files, `[out, in]`.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Tensor, backend::Backend},
};
use secateur_backends::{
    VlmBackend,
    operations::{add_bias, linear},
};

/// A parameter that takes no memory until a checkpoint fills it (zeros, should anyone read it before).
pub(in crate::model) fn unfilled<B: Backend, const D: usize>(
    shape: [usize; D],
    device: &B::Device,
) -> Param<Tensor<B, D>> {
    let init = move |device: &B::Device, _grad: bool| Tensor::zeros(shape, device);
    Param::uninitialized(ParamId::new(), init, device.clone(), false, shape.into())
}

/// The settings that networks are built with.
#[derive(Debug)]
pub struct Build<'a, B: Backend> {
    /// The device of the weights.
    pub device: &'a B::Device,
    /// Whether products, and attention between them, may round their inputs to bf16 where that is faster.
    pub bf16: bool,
}

impl<B: Backend> Clone for Build<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Build<'_, B> {}

impl<'a, B: VlmBackend> Build<'a, B> {
    /// Settings for products whose inputs are not rounded.
    pub fn exact(device: &'a B::Device) -> Self {
        Self { device, bf16: false }
    }

    /// An unfilled product.
    pub fn linear(self, inputs: usize, outputs: usize, bias: bool) -> Linear<B> {
        Linear {
            weight: unfilled([outputs, inputs], self.device),
            bias: bias.then(|| unfilled([outputs], self.device)),
            bf16: self.bf16,
        }
    }
}

/// A linear layer, `x · weightᵀ + bias`, the weight in the checkpoint's dtype, the result in that of `x`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// The weight, `[out, in]`.
    pub weight: Param<Tensor<B, 2>>,
    /// The bias, `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// Whether the layer's inputs may be rounded to bf16.
    bf16: bool,
}

impl<B: VlmBackend> Linear<B> {
    /// Whether inputs may be rounded to bf16, here and in what lies between such products.
    pub fn is_bf16(&self) -> bool {
        self.bf16
    }

    /// Computes `x · weightᵀ + bias`.
    ///
    /// # Shapes
    /// - `x`: `[…, in]`
    /// - result: `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let mut shape = x.dims();
        let inputs = shape[D - 1];
        let rows = x.reshape([-1, inputs as i32]);
        let y = linear(rows, self.weight.val(), self.bf16);
        let y = match &self.bias {
            Some(bias) => add_bias(y, bias.val()),
            None => y,
        };
        shape[D - 1] = y.dims()[1];
        y.reshape(shape)
    }
}
