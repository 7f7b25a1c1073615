//! Elementwise kernels, which run between products.

use std::f32::consts::FRAC_1_SQRT_2;

use burn::tensor::TensorMetadata;
use burn_cubecl::{CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use super::{UNITS, room};

/// The kernel of [`crate::VlmBackend::silu_mul`].
pub(crate) fn gate<R: CubeRuntime>(gate: CubeTensor<R>, up: CubeTensor<R>) -> CubeTensor<R> {
    let (gate, up) = (into_contiguous(gate), into_contiguous(up));
    let out = room(&gate, gate.shape(), gate.dtype);
    let (client, dtype, count) = (gate.client.clone(), gate.dtype, gate.shape().num_elements());
    gate_kernel::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, count, CubeDim::new_1d(UNITS)),
        CubeDim::new_1d(UNITS),
        gate.into_tensor_arg(),
        up.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        dtype.into(),
    );
    out
}

/// The kernel of [`crate::VlmBackend::exact_gelu`], or, if `quick`, of [`crate::VlmBackend::quick_gelu`].
pub(crate) fn gelu<R: CubeRuntime>(x: CubeTensor<R>, quick: bool) -> CubeTensor<R> {
    let x = into_contiguous(x);
    let out = room(&x, x.shape(), x.dtype);
    let (client, dtype, count) = (x.client.clone(), x.dtype, x.shape().num_elements());
    gelu_kernel::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, count, CubeDim::new_1d(UNITS)),
        CubeDim::new_1d(UNITS),
        x.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        quick,
        dtype.into(),
    );
    out
}

/// The kernel of [`crate::VlmBackend::apply_rope`]; `x` may be a view.
pub(crate) fn rotate<R: CubeRuntime>(x: CubeTensor<R>, cos: CubeTensor<R>, sin: CubeTensor<R>) -> CubeTensor<R> {
    let out = room(&x, x.shape(), x.dtype);
    let (client, dtype, count) = (x.client.clone(), x.dtype, x.shape().num_elements());
    rotate_kernel::launch::<R>(
        &client,
        calculate_cube_count_elemwise(&client, count, CubeDim::new_1d(UNITS)),
        CubeDim::new_1d(UNITS),
        x.into_tensor_arg(),
        cos.into_tensor_arg(),
        sin.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        dtype.into(),
    );
    out
}

#[cube(launch)]
fn gate_kernel<F: Float>(gate: &Tensor<F>, up: &Tensor<F>, out: &mut Tensor<F>, #[define(F)] _dtype: StorageType) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let value = f32::cast_from(gate[ABSOLUTE_POS]);
    out[ABSOLUTE_POS] = F::cast_from(value / (1.0f32 + (-value).exp())) * up[ABSOLUTE_POS];
}

#[cube(launch)]
fn gelu_kernel<F: Float>(
    x: &Tensor<F>,
    out: &mut Tensor<F>,
    #[comptime] quick: bool,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let value = f32::cast_from(x[ABSOLUTE_POS]);
    let gelu = if comptime!(quick) {
        value / (1.0f32 + (-1.702f32 * value).exp())
    } else {
        0.5f32 * value * (1.0f32 + Erf::erf(value * FRAC_1_SQRT_2))
    };
    out[ABSOLUTE_POS] = F::cast_from(gelu);
}

#[cube(launch)]
fn rotate_kernel<F: Float>(
    x: &Tensor<F>,
    cos: &Tensor<F>,
    sin: &Tensor<F>,
    out: &mut Tensor<F>,
    #[define(F)] _dtype: StorageType,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let (heads, tokens, width) = (out.shape(1), out.shape(2), out.shape(3));
    let i = ABSOLUTE_POS % width;
    let token = ABSOLUTE_POS / width % tokens;
    let head = ABSOLUTE_POS / (width * tokens) % heads;
    let batch = ABSOLUTE_POS / (width * tokens * heads);
    let start = batch * x.stride(0) + head * x.stride(1) + token * x.stride(2);
    let half = width / 2;
    let (other, sign) = if i < half { (i + half, F::new(-1.0)) } else { (i - half, F::new(1.0)) };
    let turned = sign * x[start + other * x.stride(3)];
    let at_cos = token * cos.stride(2) + i * cos.stride(3);
    let at_sin = token * sin.stride(2) + i * sin.stride(3);
    out[ABSOLUTE_POS] = x[start + i * x.stride(3)] * cos[at_cos] + turned * sin[at_sin];
}
