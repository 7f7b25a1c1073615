//! Layers that Burn has under other names, layouts or dtypes than the checkpoints: weights as in the file
//! (`[out, in]`), fields named as in the file, statistics in f32.

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};
use secateur_backends::VlmBackend;

/// A parameter that takes no memory until a checkpoint fills it (zeros, should anyone read it before).
pub(super) fn unfilled<B: Backend, const D: usize>(shape: [usize; D], device: &B::Device) -> Param<Tensor<B, D>> {
    let init = move |device: &B::Device, _grad: bool| Tensor::zeros(shape, device);
    Param::uninitialized(ParamId::new(), init, device.clone(), false, shape.into())
}

/// `x · weightᵀ + bias`, the weight in the checkpoint's dtype, the result in that of `x`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `[out, in]`.
    pub weight: Param<Tensor<B, 2>>,
    /// `[out]`.
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// Whether its inputs may be rounded to the weight's dtype.
    rounds: bool,
}

impl<B: VlmBackend> Linear<B> {
    /// An unfilled layer.
    pub fn new(inputs: usize, outputs: usize, bias: bool, device: &B::Device) -> Self {
        Self {
            weight: unfilled([outputs, inputs], device),
            bias: bias.then(|| unfilled([outputs], device)),
            rounds: false,
        }
    }

    /// Whether inputs may be rounded to the weight's dtype, here and in what lies between such products.
    pub fn rounds(&self) -> bool {
        self.rounds
    }

    /// # Shapes
    /// - `x`: `[…, in]`
    /// - result: `[…, out]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let mut shape = x.dims();
        let inputs = shape[D - 1];
        let rows = x.reshape([-1, inputs as i32]);
        let weight = self.weight.val();
        let y = if self.rounds { linear_rounded(rows, weight) } else { linear(rows, weight) };
        let y = match &self.bias {
            Some(bias) => B::add_bias(y, bias.val()),
            None => y,
        };
        shape[D - 1] = y.dims()[1];
        y.reshape(shape)
    }
}

/// A network whose products may be rounded.
pub(super) trait Rounds {
    /// Lets every product round its inputs to the weight's dtype, if that is faster.
    fn round(&mut self);
}

impl<B: Backend> Rounds for Linear<B> {
    fn round(&mut self) {
        self.rounds = true;
    }
}

/// [`VlmBackend::apply_weight_rounded`] on tensors.
fn linear_rounded<B: VlmBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let product = B::apply_weight_rounded(x.into_primitive().tensor(), weight.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(product))
}

/// [`VlmBackend::apply_weight`] on tensors: `x` `[rows, in]`, `weight` `[out, in]`, result `[rows, out]`.
pub(super) fn linear<B: VlmBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let product = B::apply_weight(x.into_primitive().tensor(), weight.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(product))
}

/// Normalisation by mean and variance.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    /// `[features]`.
    pub bias: Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: VlmBackend> LayerNorm<B> {
    /// An unfilled layer.
    pub fn new(features: usize, eps: f64, device: &B::Device) -> Self {
        Self { weight: unfilled([features], device), bias: unfilled([features], device), eps }
    }

    /// # Shapes
    /// - `x`, result: `[…, features]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let shape = x.dims();
        let rows = x.reshape([-1, shape[D - 1] as i32]);
        B::layer_norm_rows(rows, self.weight.val(), self.bias.val(), self.eps).reshape(shape)
    }
}

/// Normalisation by root mean square, as `LlamaRMSNorm`.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[features]`.
    pub weight: Param<Tensor<B, 1>>,
    eps: f64,
}

impl<B: VlmBackend> RmsNorm<B> {
    /// An unfilled layer.
    pub fn new(features: usize, eps: f64, device: &B::Device) -> Self {
        Self { weight: unfilled([features], device), eps }
    }

    /// # Shapes
    /// - `x`, result: `[…, features]`
    pub fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        let shape = x.dims();
        let rows = x.reshape([-1, shape[D - 1] as i32]);
        B::rms_norm_rows(rows, self.weight.val(), self.eps).reshape(shape)
    }
}

/// Fills a network for a test.
#[cfg(all(test, feature = "flex"))]
pub(super) struct Noise;

#[cfg(all(test, feature = "flex"))]
impl<B: Backend> burn::module::ModuleMapper<B> for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        let noise = Tensor::random(shape, burn::tensor::Distribution::Normal(0.0, 0.3), &device);
        Param::initialized(param.id, noise)
    }
}

/// The largest difference between two tensors of one shape; NaN where one is NaN.
#[cfg(all(test, feature = "flex"))]
pub(super) fn difference<B: Backend, const D: usize>(found: Tensor<B, D>, expected: Tensor<B, D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(crate::tensor::host);
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}
