//! NVIDIA GPUs. Activations follow the weights' dtype, as in the official code.

use burn::tensor::DType;
use burn_cubecl::{cubecl::cuda::CudaRuntime, tensor::CubeTensor};
use cudarc::driver::{self, CudaContext};

use crate::{
    DeviceInfo, DeviceKind,
    cube::{Gpu, products},
};

/// Burn's CUDA backend; CUDA itself is loaded at run time.
pub type Cuda = burn_cuda::Cuda<f32, i32>;

/// GPU number `index` of those that `CUDA_VISIBLE_DEVICES` leaves, or the first.
pub(crate) fn device(index: Option<usize>) -> Option<burn_cuda::CudaDevice> {
    match index {
        None => Some(burn_cuda::CudaDevice::default()),
        Some(index) => (index < devices().len()).then(|| burn_cuda::CudaDevice::new(index)),
    }
}

/// The GPUs that `CUDA_VISIBLE_DEVICES` leaves.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    let count = CudaContext::device_count().unwrap_or(0);
    let info = |index| {
        let device = driver::result::device::get(index).ok()?;
        let name = driver::result::device::get_name(device).ok()?;
        // SAFETY: the driver is initialised, since it has counted its devices, and `device` is one of them.
        let memory = unsafe { driver::result::device::total_mem(device) }.ok();
        Some(DeviceInfo { name, kind: DeviceKind::Gpu, memory: memory.map(|bytes| bytes as u64), largest: None })
    };
    (0..count).filter_map(info).collect()
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
