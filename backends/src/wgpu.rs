//! Any GPU through wgpu: Vulkan (Mesa's lavapipe included) or Metal.

use burn::tensor::DType;
use burn_cubecl::cubecl::wgpu::WgpuRuntime;

use crate::cube::Gpu;

/// Burn's wgpu backend.
pub type Wgpu = burn_wgpu::Wgpu<f32, i32, u32>;

/// The device: the adapter that wgpu ranks first.
pub(crate) fn device() -> burn_wgpu::WgpuDevice {
    burn_wgpu::WgpuDevice::default()
}

impl Gpu for WgpuRuntime {
    const ROUNDS: bool = false;

    fn activation_dtype(_: DType) -> DType {
        DType::F32
    }
}
