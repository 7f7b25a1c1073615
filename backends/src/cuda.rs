//! NVIDIA GPUs. Activations follow the weights' dtype, as the official code runs them.

use burn::tensor::DType;

use crate::VlmBackend;

/// Burn's CUDA backend; CUDA itself is loaded at run time.
pub type Cuda = burn_cuda::Cuda<f32, i32>;

/// The first GPU.
pub(crate) fn device() -> burn_cuda::CudaDevice {
    burn_cuda::CudaDevice::default()
}

impl VlmBackend for Cuda {
    fn activation_dtype(weights: DType) -> DType {
        weights
    }
}
