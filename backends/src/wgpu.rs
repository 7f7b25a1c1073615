//! Any GPU through wgpu: Vulkan (Mesa's lavapipe included) or Metal.

use burn::tensor::DType;
use burn_cubecl::cubecl::wgpu::WgpuRuntime;
use burn_wgpu::WgpuDevice;

use crate::{DeviceInfo, DeviceKind, cube::Gpu};

/// Burn's wgpu backend.
pub type Wgpu = burn_wgpu::Wgpu<f32, i32, u32>;

/// Adapter number `index` of [`devices`], or the one that wgpu ranks first.
pub(crate) fn device(index: Option<usize>) -> Option<WgpuDevice> {
    let Some(index) = index else { return Some(WgpuDevice::default()) };
    let all = devices();
    let kind = all.get(index)?.kind;
    // Burn counts the adapters of each kind apart.
    let number = all[..index].iter().filter(|other| other.kind == kind).count();
    Some(match kind {
        DeviceKind::Gpu => WgpuDevice::DiscreteGpu(number),
        DeviceKind::IntegratedGpu => WgpuDevice::IntegratedGpu(number),
        DeviceKind::VirtualGpu => WgpuDevice::VirtualGpu(number),
        DeviceKind::Cpu => WgpuDevice::Cpu,
    })
}

/// The adapters, the best kinds first; of renderers in software only the first, which is the only one that Burn opens.
pub(crate) fn devices() -> Vec<DeviceInfo> {
    let backends = if cfg!(target_vendor = "apple") { wgpu::Backends::METAL } else { wgpu::Backends::VULKAN };
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = burn_cubecl::cubecl::future::block_on(instance.enumerate_adapters(backends));
    let mut found: Vec<DeviceInfo> = adapters.iter().filter_map(info).collect();
    found.sort_by_key(|device| device.kind);
    if let Some(first) = found.iter().position(|device| device.kind == DeviceKind::Cpu) {
        found.truncate(first + 1);
    }
    found
}

/// An adapter; `None` for one that Burn has no name for.
fn info(adapter: &wgpu::Adapter) -> Option<DeviceInfo> {
    let about = adapter.get_info();
    let kind = match about.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::Gpu,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::IntegratedGpu,
        wgpu::DeviceType::VirtualGpu => DeviceKind::VirtualGpu,
        wgpu::DeviceType::Cpu => DeviceKind::Cpu,
        wgpu::DeviceType::Other => return None,
    };
    let largest = Some(adapter.limits().max_storage_buffer_binding_size);
    Some(DeviceInfo { name: about.name, kind, memory: memory(adapter), largest })
}

/// The memory of an adapter: the largest heap of its own. wgpu itself does not tell.
#[cfg(not(target_vendor = "apple"))]
fn memory(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter is only asked, and lives as long as this borrow.
    let adapter = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device is one of this instance.
    let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    memory.memory_heaps_as_slice().iter().map(|heap| heap.size).max()
}

/// Metal's memory is the machine's.
#[cfg(target_vendor = "apple")]
fn memory(_: &wgpu::Adapter) -> Option<u64> {
    crate::host::memory()
}

impl Gpu for WgpuRuntime {
    const ROUNDS: bool = false;

    fn activation_dtype(_: DType) -> DType {
        DType::F32
    }
}
