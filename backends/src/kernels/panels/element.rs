//! Packed elements: the content of a vector's lane in a step.

use std::{arch::x86_64::*, array, mem::transmute};

use half::bf16;

use super::square::{SIDE, load, transpose};
use crate::kernels::{
    nearest::nearest,
    vectors::{exp, exp_to_round, on_vectors},
    widen::Weight,
};

/// A packed element of 32 bits: a number in f32, or two neighbours in bf16.
pub(super) trait PackedElement: Copy + Default + Send + Sync {
    /// The count of numbers in a packed element.
    const NUMBERS: usize;

    /// Writes a row of numbers as packed elements, rounded where necessary; missing numbers of the last packed element are 0.
    ///
    /// # Safety
    /// The processor must have the instructions that multiply such packed elements.
    unsafe fn of(row: &[f32], to: &mut [Self]);

    /// Returns `numbers` if they are packed elements themselves, else `elements`, which were made of them.
    fn either<'a>(numbers: &'a [f32], elements: &'a [Self]) -> &'a [Self];

    /// Writes packed elements down the columns, of [`Self::NUMBERS`] rows, or fewer at the end.
    fn down(rows: &[&[f32]], to: &mut [Self]);

    /// Computes `eˣ` for `x` up to 0, as exactly as such packed elements need it.
    fn exp(x: f32) -> f32;

    /// Transposes a square of packed elements: row `i` is of the numbers from `from + i · stride`, column `i` is written to `to +
    /// i · to_stride`.
    ///
    /// # Safety
    /// The processor must have AVX2 and the instructions that multiply such packed elements, and both squares must be there.
    unsafe fn transposed(from: *const f32, stride: usize, to: *mut Self, to_stride: usize);
}

/// A weight that packed elements are made of.
pub(super) trait Source<I: PackedElement>: Copy + Sync {
    /// Writes every element of `from` as a packed element.
    fn lay(from: &[Self], to: &mut [I]);
}

impl PackedElement for f32 {
    const NUMBERS: usize = 1;

    unsafe fn of(row: &[f32], to: &mut [Self]) {
        to.copy_from_slice(row);
    }

    fn either<'a>(numbers: &'a [f32], _: &'a [Self]) -> &'a [Self] {
        numbers
    }

    fn down(rows: &[&[f32]], to: &mut [Self]) {
        to.copy_from_slice(rows[0]);
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        exp(x)
    }

    #[target_feature(enable = "avx2")]
    unsafe fn transposed(from: *const f32, stride: usize, to: *mut Self, to_stride: usize) {
        // SAFETY: by the caller.
        unsafe { transpose(load(from, stride), to, to_stride) };
    }
}

impl<T: Weight> Source<f32> for T {
    fn lay(from: &[Self], to: &mut [f32]) {
        T::widen(from, to);
    }
}

/// A packed element of two neighbouring numbers.
pub(super) type Pair = [bf16; 2];

impl PackedElement for Pair {
    const NUMBERS: usize = 2;

    #[target_feature(enable = "avx512f,avx512bf16")]
    unsafe fn of(row: &[f32], to: &mut [Self]) {
        assert_eq!(row.len().div_ceil(2), to.len());
        let (row, row_rest) = row.as_chunks::<32>();
        // The chunks must be as many as in `row`: 31 numbers left over give 16 pairs, a whole chunk of pairs.
        let (to, to_rest) = to.split_at_mut(16 * row.len());
        for (row, to) in row.iter().zip(to.as_chunks_mut::<16>().0) {
            let [low, high] = [0, 16].map(|at| row[at..].as_ptr());
            // SAFETY: 16 numbers each, and as many pairs.
            unsafe {
                let pairs = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(high), _mm512_loadu_ps(low));
                _mm512_storeu_si512(to.as_mut_ptr().cast(), transmute::<__m512bh, __m512i>(pairs));
            }
        }
        for (pair, to) in row_rest.chunks(2).zip(to_rest) {
            *to = [round(pair[0]), pair.get(1).map_or(bf16::ZERO, |x| round(*x))];
        }
    }

    fn either<'a>(_: &'a [f32], elements: &'a [Self]) -> &'a [Self] {
        elements
    }

    fn down(rows: &[&[f32]], to: &mut [Self]) {
        on_vectors!(match rows {
            [first, second] => to
                .iter_mut()
                .zip(first.iter().zip(*second))
                .for_each(|(to, (&first, &second))| *to = [round(first), round(second)]),
            rows => to.iter_mut().zip(rows[0]).for_each(|(to, &first)| *to = [round(first), bf16::ZERO]),
        });
    }

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        exp_to_round(x)
    }

    #[target_feature(enable = "avx2,avx512f,avx512bf16")]
    unsafe fn transposed(from: *const f32, stride: usize, to: *mut Self, to_stride: usize) {
        let rows: [__m256; SIDE] = array::from_fn(|i| {
            // SAFETY: by the caller, two numbers for every packed element; 256 bits of anything.
            unsafe { transmute(_mm512_cvtneps_pbh(_mm512_loadu_ps(from.add(i * stride)))) }
        });
        // SAFETY: by the caller; bits are moved as they are.
        unsafe { transpose(rows, to.cast(), to_stride) };
    }
}

impl Source<Pair> for bf16 {
    fn lay(from: &[Self], to: &mut [Pair]) {
        to.copy_from_slice(from.as_chunks().0);
    }
}

#[inline(always)]
fn round(x: f32) -> bf16 {
    bf16::from_bits(nearest(x))
}
