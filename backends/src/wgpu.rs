//! Any GPU through wgpu: Vulkan (Mesa's lavapipe included) or Metal.

use crate::VlmBackend;

/// Burn's wgpu backend.
pub type Wgpu = burn_wgpu::Wgpu<f32, i32, u32>;

/// The adapter that wgpu ranks first.
pub(crate) fn device() -> burn_wgpu::WgpuDevice {
    burn_wgpu::WgpuDevice::default()
}

impl VlmBackend for Wgpu {}
