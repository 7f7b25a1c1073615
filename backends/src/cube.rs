//! Kernels for GPUs, in CubeCL: one launch where tensor code takes many, each of which costs its launch and a pass over
//! memory.
//!
//! The same source runs on CUDA and on wgpu. Sums are in f32 whatever the type of the tensors.

mod attend;
mod backend;
mod elementwise;
mod norm;
#[cfg(feature = "cuda")]
pub(crate) mod products;

use burn::tensor::{DType, Shape, Tensor, TensorPrimitive, backend::Backend};
use burn_cubecl::{
    CubeRuntime, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype, tensor::CubeTensor,
};
use cubecl::prelude::*;

pub(crate) use attend::{one_query, softmax};
pub(crate) use backend::Gpu;
pub(crate) use elementwise::{gate, gelu, rotate};
pub(crate) use norm::{layer_norm, rms_norm};

/// The number of units that work on a row together.
const UNITS: u32 = 256;
/// The largest number of rows in a line of the grid: less than any GPU allows.
const LINE: usize = 1 << 15;

/// The cube count with a cube for every row; see [`row`].
fn cubes(rows: usize) -> CubeCount {
    let line = rows.clamp(1, LINE);
    CubeCount::Static(line as u32, rows.div_ceil(line) as u32, 1)
}

/// The row of a cube.
#[cube]
fn row() -> usize {
    (CUBE_POS_Y * CUBE_COUNT_X + CUBE_POS_X) as usize
}

/// The sum over a cube's units.
#[cube]
fn sum(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    gather(value, shared, false)
}

/// The largest value of a cube's units.
#[cube]
fn largest(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    gather(value, shared, true)
}

/// Reduces the values of a cube's units to their sum or to the largest: the number of values is halved until one is left.
#[cube]
fn gather(value: f32, shared: &mut SharedMemory<f32>, #[comptime] largest: bool) -> f32 {
    let unit = UNIT_POS_X as usize;
    shared[unit] = value;
    sync_cube();
    let mut step = CUBE_DIM_X as usize / 2;
    while step > 0 {
        if unit < step {
            let (own, other) = (shared[unit], shared[unit + step]);
            shared[unit] = if comptime!(largest) { max(own, other) } else { own + other };
        }
        sync_cube();
        step /= 2;
    }
    let found = shared[0];
    sync_cube();
    found
}

/// Allocates a tensor on the device of `x`, row after row without gaps.
///
/// CUDA's usual tensors have gaps: their rows begin at multiples of 512 bytes.
fn room<R: CubeRuntime>(x: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), shape, dtype)
}

/// Returns `x` with the numbers of a row side by side and all rows at equal distances, which is the stride of the last
/// dimension but one.
fn in_rows<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let (shape, strides) = (x.meta.shape(), x.meta.strides());
    let last = shape.num_dims() - 1;
    let mut whole = strides[last - 1] * shape[last - 1];
    // The stride of a dimension of size 1 says nothing.
    let even = (0..last - 1).rev().filter(|&d| shape[d] != 1).all(|d| {
        let even = strides[d] == whole;
        whole *= shape[d];
        even
    });
    if strides[last] == 1 && even { x } else { into_contiguous(x) }
}

/// Wraps a float tensor of a backend whose tensors are CubeCL's.
pub(crate) fn wrap<B: Backend, const D: usize>(x: B::FloatTensorPrimitive) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(x))
}

/// Returns the tensor that [`wrap`] wraps.
pub(crate) fn unwrap<B: Backend, const D: usize>(x: Tensor<B, D>) -> B::FloatTensorPrimitive {
    x.into_primitive().tensor()
}
