//! Kernels of norms, with a cube for each row.

use burn::tensor::TensorMetadata;
use burn_cubecl::{CubeRuntime, kernel::into_contiguous, tensor::CubeTensor};
use cubecl::prelude::*;

use super::{UNITS, cubes, in_rows, room, row, sum};

/// The kernel of [`crate::VlmBackend::rms_norm_rows`].
pub(crate) fn rms_norm<R: CubeRuntime>(x: CubeTensor<R>, weight: CubeTensor<R>, eps: f64) -> CubeTensor<R> {
    norm(x, weight.clone(), weight, eps, false)
}

/// The kernel of [`crate::VlmBackend::layer_norm_rows`].
pub(crate) fn layer_norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    bias: CubeTensor<R>,
    eps: f64,
) -> CubeTensor<R> {
    norm(x, weight, bias, eps, true)
}

fn norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    weight: CubeTensor<R>,
    bias: CubeTensor<R>,
    eps: f64,
    centred: bool,
) -> CubeTensor<R> {
    let (x, [weight, bias]) = (in_rows(x), [weight, bias].map(into_contiguous));
    let [rows, width] = x.shape().dims();
    let out = room(&x, x.shape(), x.dtype);
    let client = x.client.clone();
    let dtypes = [x.dtype.into(), weight.dtype.into()];
    norm_kernel::launch::<R>(
        &client,
        cubes(rows),
        CubeDim::new_1d(UNITS),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        bias.into_tensor_arg(),
        out.clone().into_tensor_arg(),
        rows as u32,
        width as u32,
        eps as f32,
        centred,
        dtypes,
    );
    out
}

/// Normalises rows: less their mean, over their standard deviation, times `weight`, plus `bias`; if not `centred`,
/// without mean and bias.
#[cube(launch)]
fn norm_kernel<F: Float, W: Float>(
    x: &Tensor<F>,
    weight: &Tensor<W>,
    bias: &Tensor<W>,
    out: &mut Tensor<F>,
    rows: u32,
    width: u32,
    eps: f32,
    #[comptime] centred: bool,
    #[define(F, W)] _dtypes: [StorageType; 2],
) {
    let row = row();
    if row >= rows as usize {
        terminate!();
    }
    let (start, to) = (row * x.stride(0), row * out.stride(0));
    let mut shared = SharedMemory::<f32>::new(UNITS as usize);
    let mut mean = 0.0f32;
    let mut i = UNIT_POS_X as usize;
    if comptime!(centred) {
        let mut values = 0.0f32;
        while i < width as usize {
            values += f32::cast_from(x[start + i]);
            i += CUBE_DIM_X as usize;
        }
        mean = sum(values, &mut shared) / f32::cast_from(width);
    }
    let mut squares = 0.0f32;
    i = UNIT_POS_X as usize;
    while i < width as usize {
        let value = f32::cast_from(x[start + i]) - mean;
        squares += value * value;
        i += CUBE_DIM_X as usize;
    }
    let scale = (sum(squares, &mut shared) / f32::cast_from(width) + eps).sqrt();
    i = UNIT_POS_X as usize;
    while i < width as usize {
        let value = (f32::cast_from(x[start + i]) - mean) / scale;
        // Rounding is as in PyTorch: a layer norm is rounded once, at its end, and transformers' RMS norm before its
        // weight, too.
        if comptime!(centred) {
            out[to + i] = F::cast_from(value * f32::cast_from(weight[i]) + f32::cast_from(bias[i]));
        } else {
            out[to + i] = F::cast_from(value) * F::cast_from(weight[i]);
        }
        i += CUBE_DIM_X as usize;
    }
}
