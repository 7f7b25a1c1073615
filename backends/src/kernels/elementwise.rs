//! Elementwise steps and norms between products, each in one pass: plain tensor operations write a whole tensor for
//! every step, on one thread.

use std::mem::MaybeUninit;

use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use super::vectors::{exp, normal_below, on_vectors, sum};

/// The count of numbers that a thread takes at a time.
const CHUNK: usize = 1 << 14;

/// Computes `silu(gate) · up`; `None` if a tensor is not f32 or not contiguous.
pub(crate) fn gate(gate: &FlexTensor, up: &FlexTensor) -> Option<FlexTensor> {
    let (gates, ups) = (numbers(gate)?, numbers(up)?);
    assert_eq!(gates.len(), ups.len(), "gate and up are of different sizes");
    Some(filled(
        gate,
        CHUNK,
        #[inline(always)]
        |from, out| {
            for ((out, gate), up) in out.iter_mut().zip(&gates[from..]).zip(&ups[from..]) {
                out.write(gate * sigmoid(*gate) * up);
            }
        },
    ))
}

/// Computes `x · σ(1.702·x)`; `None` if `x` is not f32 or not contiguous.
pub(crate) fn quick_gelu(x: &FlexTensor) -> Option<FlexTensor> {
    each(
        x,
        #[inline(always)]
        |x| x * sigmoid(1.702 * x),
    )
}

/// Computes `x · Φ(x)`; `None` if `x` is not f32 or not contiguous.
pub(crate) fn exact_gelu(x: &FlexTensor) -> Option<FlexTensor> {
    each(
        x,
        #[inline(always)]
        |x| x * normal_below(x),
    )
}

/// RMS norm: divides rows by their root mean square, times `weight`; `None` if a tensor is not f32 or not contiguous.
pub(crate) fn rms_norm(x: &FlexTensor, weight: &FlexTensor, eps: f32) -> Option<FlexTensor> {
    let (numbers, weight) = (numbers(x)?, numbers(weight)?);
    let width = features(x, weight);
    Some(filled(
        x,
        rows(width),
        #[inline(always)]
        |from, out| {
            for (out, x) in out.chunks_exact_mut(width).zip(numbers[from..].chunks_exact(width)) {
                let scale = (sum(x, x, |x, _| x * x) / width as f32 + eps).sqrt().recip();
                for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                    out.write(x * scale * weight);
                }
            }
        },
    ))
}

/// Layer norm: rows less their mean, divided by their standard deviation, times `weight`, plus `bias`; `None` if a
/// tensor is not f32 or not contiguous.
pub(crate) fn layer_norm(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor, eps: f32) -> Option<FlexTensor> {
    let (numbers, weight, bias) = (numbers(x)?, numbers(weight)?, numbers(bias)?);
    let width = features(x, weight);
    assert_eq!(bias.len(), width, "the bias is of another size");
    Some(filled(
        x,
        rows(width),
        #[inline(always)]
        |from, out| {
            for (out, x) in out.chunks_exact_mut(width).zip(numbers[from..].chunks_exact(width)) {
                let mean = sum(x, x, |x, _| x) / width as f32;
                let scale = (sum(x, x, |x, _| (x - mean) * (x - mean)) / width as f32 + eps).sqrt().recip();
                for (((out, x), weight), bias) in out.iter_mut().zip(x).zip(weight).zip(bias) {
                    out.write((x - mean) * scale * weight + bias);
                }
            }
        },
    ))
}

/// Adds `bias` to every row of `x`, in place; gives `x` back untouched where it is shared or not made for it.
pub(crate) fn add_bias(mut x: FlexTensor, bias: &FlexTensor) -> Result<FlexTensor, FlexTensor> {
    let whole = x.is_contiguous() && x.layout().start_offset() == 0 && x.is_unique() && x.dtype() == DType::F32;
    let Some(bias) = numbers(bias).filter(|_| whole) else { return Err(x) };
    let width = features(&x, bias);
    let count = x.layout().shape()[..].iter().product();
    in_chunks(&mut x.storage_mut::<f32>()[..count], rows(width), |_, x| {
        on_vectors!({
            for row in x.chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        });
    });
    Ok(x)
}

/// Adds `bias`, if there is one, to every row of `rows`.
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "products elsewhere have no bias of their own"))]
pub(super) fn add_to_rows(numbers: &mut [f32], bias: Option<&[f32]>) {
    let Some(bias) = bias.filter(|bias| !bias.is_empty()) else { return };
    let add = |numbers: &mut [f32]| numbers.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
    in_chunks(numbers, rows(bias.len()), |_, rows| rows.chunks_exact_mut(bias.len()).for_each(add));
}

/// The numbers of an f32 tensor that is contiguous; `None` for another one.
pub(super) fn numbers(tensor: &FlexTensor) -> Option<&[f32]> {
    let count: usize = tensor.layout().shape()[..].iter().product();
    (tensor.dtype() == DType::F32 && tensor.is_contiguous())
        .then(|| &tensor.storage::<f32>()[tensor.layout().start_offset()..][..count])
}

/// The length of a row, which is that of `weight`.
fn features(x: &FlexTensor, weight: &[f32]) -> usize {
    assert_eq!(x.layout().shape()[..].last(), Some(&weight.len()), "the weight is of another size");
    weight.len()
}

/// About as many numbers as a thread takes at a time, rounded to whole rows.
fn rows(width: usize) -> usize {
    (CHUNK / width).max(1) * width
}

/// Applies `f` to every number; `f` must be `#[inline(always)]`, see [`on_vectors`].
fn each(x: &FlexTensor, f: impl Fn(f32) -> f32 + Sync) -> Option<FlexTensor> {
    let numbers = numbers(x)?;
    Some(filled(
        x,
        CHUNK,
        #[inline(always)]
        |from, out| {
            for (out, x) in out.iter_mut().zip(&numbers[from..]) {
                out.write(f(*x));
            }
        },
    ))
}

/// A new tensor of the shape of `like`. `fill` gets the start of a chunk of `chunk` numbers, and the chunk, all of
/// which it must write; it must be `#[inline(always)]`, see [`on_vectors`].
fn filled(like: &FlexTensor, chunk: usize, fill: impl Fn(usize, &mut [MaybeUninit<f32>]) + Sync) -> FlexTensor {
    let shape = like.layout().shape().clone();
    let count = shape[..].iter().product();
    let mut out = Vec::with_capacity(count);
    in_chunks(&mut out.spare_capacity_mut()[..count], chunk, |from, out| on_vectors!(fill(from, out)));
    // SAFETY: `fill` has written all of them.
    unsafe { out.set_len(count) };
    FlexTensor::new(Bytes::from_elems(out), Layout::contiguous(shape), DType::F32)
}

/// Calls `work` for every chunk with the chunk's start.
fn in_chunks<T: Send>(numbers: &mut [T], chunk: usize, work: impl Fn(usize, &mut [T]) + Sync) {
    if numbers.len() <= chunk {
        return work(0, numbers);
    }
    numbers.par_chunks_mut(chunk).enumerate().for_each(|(i, numbers)| work(i * chunk, numbers));
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    // Below e⁻⁸⁸ the value of `exp` no longer falls, and a large x times it would not be 0. NaN stays NaN.
    let power = if x.abs() > 88.0 { 0.0 } else { exp(-x.abs()) };
    (if x >= 0.0 { 1.0 } else { power }) / (1.0 + power)
}
