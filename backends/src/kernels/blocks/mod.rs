//! `x · Wᵀ` for weights in blocks, `[out, in]`, read as they lie in the file.
//!
//! Few rows of `x` become whole numbers ([`planes`]), and are multiplied by the weight's whole numbers ([`dots`]): reading
//! the blocks takes the time. For more rows, blocks become floats on their way into the cache ([`unpacked`]), where the
//! kernels for floats multiply them.

#[cfg(target_arch = "x86_64")]
mod dots;
mod groups;
#[cfg(target_arch = "x86_64")]
mod planes;
mod unpacked;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::bf16;
use secateur_blocks::Blocks;
use unpacked::Unpacked;

use super::linear;
use crate::Rounding;

/// The product `x · weightᵀ`; `x` is f32, contiguous from offset 0.
pub(crate) fn product(x: &FlexTensor, weight: &Blocks, rounding: Rounding) -> FlexTensor {
    let (x_shape, [outputs, inner]) = (x.layout().shape(), weight.shape());
    let rows = x_shape[0];
    assert_eq!(inner, x_shape[1], "linear: x is [{rows}, {}], the weight [{outputs}, {inner}]", x_shape[1]);
    let out = multiply(&x.storage::<f32>()[..rows * inner], weight, [rows, inner, outputs], rounding);
    FlexTensor::new(Bytes::from_elems(out), Layout::contiguous(Shape::from([rows, outputs])), DType::F32)
}

fn multiply(x: &[f32], weight: &Blocks, sizes: [usize; 3], rounding: Rounding) -> Vec<f32> {
    #[cfg(target_arch = "x86_64")]
    if let Some(out) = dots::product(x, weight, sizes, rounding) {
        return out;
    }
    let rounded = match rounding {
        Rounding::None => None,
        Rounding::Bf16 | Rounding::Int8 => linear::rounded_rows(x, &Unpacked::<bf16>::new(weight), sizes, None),
    };
    rounded.unwrap_or_else(|| linear::exact_rows(x, &Unpacked::<f32>::new(weight), sizes))
}

#[cfg(test)]
mod tests;
