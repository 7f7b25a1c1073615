//! Helpers that the tests of networks share.

use burn::{
    module::{ModuleMapper, Param},
    tensor::{Distribution, Tensor, backend::Backend},
};

/// Fills a network with random numbers.
pub(in crate::model) struct Noise;

impl<B: Backend> ModuleMapper<B> for Noise {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let (shape, device) = (param.lazy_shape(), param.lazy_device());
        let noise = Tensor::random(shape, Distribution::Normal(0.0, 0.3), &device);
        Param::initialized(param.id, noise)
    }
}

/// The largest difference between two tensors of one shape; NaN where one is NaN.
pub(in crate::model) fn difference<B: Backend, const D: usize>(found: Tensor<B, D>, expected: Tensor<B, D>) -> f32 {
    assert_eq!(found.dims(), expected.dims());
    let [found, expected] = [found, expected].map(crate::tensor::host);
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}
