//! Burn's ndarray backend, plain Rust on the CPU: slow, portable, and an independent check of the other backends.

use burn::tensor::{Int, Tensor};

use crate::{VlmBackend, dpp};

/// Burn's ndarray backend. It has no 16-bit types, so 16-bit weights become f32.
pub type NdArray = burn_ndarray::NdArray<f32, i64, i8>;

/// The CPU, the only device.
pub(crate) fn device(index: Option<usize>) -> Option<burn_ndarray::NdArrayDevice> {
    index.is_none_or(|index| index == 0).then_some(burn_ndarray::NdArrayDevice::Cpu)
}

pub(crate) use crate::host::devices;

impl VlmBackend for NdArray {
    /// Computes on the host: it is the device and has f64, and a loop over slices beats a dozen tensor operations a step.
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_host(vectors, budget)
    }
}
