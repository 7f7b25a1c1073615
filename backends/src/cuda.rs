//! NVIDIA GPUs. Activations follow the weights' dtype, as in the official code.

use burn::tensor::DType;
use burn_cubecl::{cubecl::cuda::CudaRuntime, tensor::CubeTensor};

use crate::cube::{Gpu, products};

/// Burn's CUDA backend; CUDA itself is loaded at run time.
pub type Cuda = burn_cuda::Cuda<f32, i32>;

/// The device: the first GPU.
pub(crate) fn device() -> burn_cuda::CudaDevice {
    burn_cuda::CudaDevice::default()
}

impl Gpu for CudaRuntime {
    const ROUNDS: bool = true;

    fn activation_dtype(weights: DType) -> DType {
        weights
    }

    fn multiply(a: &CubeTensor<Self>, b: &CubeTensor<Self>, out: DType) -> Option<CubeTensor<Self>> {
        products::multiply(a, b, out)
    }
}
