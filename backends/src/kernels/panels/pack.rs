//! `x` as tiles read it.

use std::{arch::x86_64::*, array, ops::Deref, slice};

use rayon::prelude::*;

use super::{BLOCK, LINE, Unit};
use crate::kernels::columns::Columns;

/// Rows and inputs of a square that changes places at once.
const SIDE: usize = 8;

/// A line of the cache: a vector that lies on two of them takes two loads.
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "written and read as numbers")] [f32; LINE / size_of::<f32>()]);

/// Numbers that begin on a line of the cache.
pub(super) struct Packed {
    lines: Vec<Line>,
    len: usize,
}

impl Deref for Packed {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: lines are numbers side by side, of which the first `len` were written.
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

/// `x` block by block, in these tile by tile, in these input by input, with the rows of the tile side by side; missing rows are 0.
///
/// # Safety
/// The processor must have AVX2.
pub(super) unsafe fn pack<U: Unit>(x: &[f32], rows: usize, inner: usize) -> Packed {
    let padded = rows.next_multiple_of(U::LANES);
    let len = padded * inner;
    let mut lines = Vec::<Line>::with_capacity((len * size_of::<f32>()).div_ceil(LINE));
    let to = Columns(lines.as_mut_ptr().cast());
    (0..inner.div_ceil(BLOCK)).into_par_iter().for_each(|number| {
        let from = number * BLOCK;
        let length = BLOCK.min(inner - from);
        for first in (0..padded).step_by(SIDE) {
            let tile = first / U::ROWS * U::ROWS;
            let width = U::ROWS.min(padded - tile);
            // SAFETY: inside of the block, which starts at `padded · from`, of the tile's part of it, and of these rows' lanes.
            let to = unsafe { to.at(padded * from + tile * length + first - tile) };
            let whole = if first + SIDE <= rows { length / SIDE * SIDE } else { 0 };
            for at in (0..whole).step_by(SIDE) {
                // SAFETY: the rows are there and go on for a square, and so does the block; the processor has AVX2, by the caller.
                unsafe { transpose(x.as_ptr().add(first * inner + from + at), inner, to.add(at * width), width) };
            }
            for at in whole..length {
                for lane in 0..SIDE {
                    let row = first + lane;
                    let value = if row < rows { x[row * inner + from + at] } else { 0.0 };
                    // SAFETY: as above.
                    unsafe { to.add(at * width + lane).write(value) };
                }
            }
        }
    });
    Packed { lines, len }
}

/// Transposes a square: row `i` begins at `from + i · from_stride`, input `i` is written to `to + i · to_stride`. Pairs, then pairs of pairs,
/// then halves change places.
///
/// # Safety
/// The processor must have AVX2, and the square must be there on both sides.
#[target_feature(enable = "avx2")]
unsafe fn transpose(from: *const f32, from_stride: usize, to: *mut f32, to_stride: usize) {
    // SAFETY: by the caller.
    let rows: [__m256; SIDE] = array::from_fn(|i| unsafe { _mm256_loadu_ps(from.add(i * from_stride)) });
    let pairs: [__m256; SIDE] = array::from_fn(|i| match i % 2 {
        0 => _mm256_unpacklo_ps(rows[i], rows[i + 1]),
        _ => _mm256_unpackhi_ps(rows[i - 1], rows[i]),
    });
    let fours: [__m256; SIDE] = array::from_fn(|i| {
        let (first, second) = (i / 4 * 4 + i % 4 / 2, i / 4 * 4 + i % 4 / 2 + 2);
        match i % 2 {
            0 => _mm256_shuffle_ps::<0b01_00_01_00>(pairs[first], pairs[second]),
            _ => _mm256_shuffle_ps::<0b11_10_11_10>(pairs[first], pairs[second]),
        }
    });
    for i in 0..SIDE {
        let column = match i / 4 {
            0 => _mm256_permute2f128_ps::<0x20>(fours[i % 4], fours[i % 4 + 4]),
            _ => _mm256_permute2f128_ps::<0x31>(fours[i % 4], fours[i % 4 + 4]),
        };
        // SAFETY: by the caller.
        unsafe { _mm256_storeu_ps(to.add(i * to_stride), column) };
    }
}
