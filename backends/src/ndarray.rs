//! Plain Rust on the CPU: slow, portable, and an independent check of the other backends.

use crate::VlmBackend;

/// Burn's ndarray backend. It has no 16-bit types, so 16-bit weights become f32.
pub type NdArray = burn_ndarray::NdArray<f32, i64, i8>;

/// The CPU.
pub(crate) fn device() -> burn_ndarray::NdArrayDevice {
    burn_ndarray::NdArrayDevice::Cpu
}

impl VlmBackend for NdArray {}
