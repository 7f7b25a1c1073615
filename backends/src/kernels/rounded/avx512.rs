//! By `vdpbf16ps`, which multiplies 32 pairs at once.
//!
//! A tile of 4 rows and 4 outputs stays in registers while it goes along a block of `in`. `x` is laid out tile by tile first, so
//! that it is read in one stream; 4 rows of the weight stay in the L1 cache while all tiles of `x` pass by.

use std::arch::x86_64::*;

use half::bf16;
use rayon::prelude::*;

use super::nearest;
use crate::kernels::columns::Columns;

/// Numbers that an instruction takes.
const WIDTH: usize = 32;
/// Rows and outputs of a tile: with more, the compiler keeps some of the sums in memory.
const ROWS: usize = 4;
const OUTPUTS: usize = 4;
/// Inputs gone along at a time: 4 rows of the weight and 4 of `x` are 32 KiB, about an L1 cache.
const BLOCK: usize = 2048;
/// Outputs that a thread takes at a time.
const CHUNK: usize = 12 * OUTPUTS;

fn has_bf16() -> bool {
    is_x86_feature_detected!("avx512bf16") && is_x86_feature_detected!("avx512f")
}

fn round(x: &[f32], out: &mut [bf16]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = bf16::from_bits(nearest(*x)));
}

/// `x` rounded, block by block of inputs, tile by tile of rows, instruction by instruction, row by row; missing rows are 0.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<bf16> {
    let tiles = rows.div_ceil(ROWS);
    let mut packed = vec![bf16::ZERO; tiles * ROWS * inner];
    let mut rest = &mut packed[..];
    for from in (0..inner).step_by(BLOCK) {
        let length = BLOCK.min(inner - from);
        let (block, later) = rest.split_at_mut(tiles * ROWS * length);
        rest = later;
        block.par_chunks_mut(ROWS * length).enumerate().for_each(|(tile, block)| {
            for (step, block) in block.chunks_exact_mut(ROWS * WIDTH).enumerate() {
                for (r, to) in block.chunks_exact_mut(WIDTH).enumerate() {
                    let row = tile * ROWS + r;
                    if row < rows {
                        round(&x[row * inner + from + step * WIDTH..][..WIDTH], to);
                    }
                }
            }
        });
    }
    packed
}

pub(super) fn product(x: &[f32], weight: &[bf16], [rows, inner, outputs]: [usize; 3]) -> Option<Vec<f32>> {
    if !has_bf16() || !inner.is_multiple_of(WIDTH) || inner == 0 {
        return None;
    }
    assert!(x.len() == rows * inner && weight.len() == outputs * inner);
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    let packed = if rows == 1 {
        // One row is a stream already.
        let mut row = vec![bf16::ZERO; inner];
        round(x, &mut row);
        row
    } else {
        pack(x, rows, inner)
    };
    weight.par_chunks(CHUNK * inner).enumerate().for_each(|(number, weight)| {
        let width = weight.len() / inner;
        for from in (0..inner).step_by(BLOCK) {
            let length = BLOCK.min(inner - from);
            for output in (0..width).step_by(OUTPUTS) {
                let count = OUTPUTS.min(width - output);
                // SAFETY: the weight's rows, the packed tiles and, at the chunk's columns, the result, which no other
                // thread writes, are there; the processor has the features.
                unsafe {
                    let weight = weight.as_ptr().add(output * inner + from);
                    let out = columns.at(number * CHUNK + output);
                    if rows == 1 {
                        along::<1>(packed.as_ptr().add(from), weight, [inner, length], out, outputs, 1, count);
                        continue;
                    }
                    let tiles = packed.as_ptr().add(rows.div_ceil(ROWS) * ROWS * from);
                    for (tile, row) in (0..rows).step_by(ROWS).enumerate() {
                        let (x, out) = (tiles.add(tile * ROWS * length), out.add(row * outputs));
                        along::<ROWS>(x, weight, [inner, length], out, outputs, ROWS.min(rows - row), count);
                    }
                }
            }
        }
    });
    Some(out)
}

/// A tile of `rows` rows and `count` outputs.
///
/// # Safety
/// As [`tile`].
unsafe fn along<const R: usize>(
    x: *const bf16,
    weight: *const bf16,
    [inner, length]: [usize; 2],
    out: *mut f32,
    stride: usize,
    rows: usize,
    count: usize,
) {
    // SAFETY: by the caller; outputs one by one are part of the tile.
    unsafe {
        if count == OUTPUTS {
            return tile::<R, OUTPUTS>(x, weight, [inner, length], out, stride, rows);
        }
        for c in 0..count {
            tile::<R, 1>(x, weight.add(c * inner), [inner, length], out.add(c), stride, rows);
        }
    }
}

/// Adds the products of `length` inputs to the result.
///
/// # Safety
/// `x` must hold `length / WIDTH` times `R` runs of [`WIDTH`] numbers, `weight` `C` rows of `length` numbers that are `inner`
/// apart, a multiple of [`WIDTH`]; `out` must have room for `C` numbers in each of `rows` rows that are `stride` apart, at
/// most `R`. The processor must have AVX-512F and AVX-512 BF16.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize, const C: usize>(
    x: *const bf16,
    weight: *const bf16,
    [inner, length]: [usize; 2],
    out: *mut f32,
    stride: usize,
    rows: usize,
) {
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    let mut own = [_mm512_setzero_si512(); R];
    // Plain loops: a closure handed to a function without these features is not inlined, and the sums leave the registers.
    for at in (0..length).step_by(WIDTH) {
        for (r, own) in own.iter_mut().enumerate() {
            // SAFETY: 32 numbers of a row are here, by the caller.
            *own = unsafe { _mm512_loadu_si512(x.add(at * R + r * WIDTH).cast()) };
        }
        for c in 0..C {
            // SAFETY: as above.
            let weight = unsafe { _mm512_loadu_si512(weight.add(c * inner + at).cast()) };
            for r in 0..R {
                // SAFETY: both types are 512 bits of anything.
                let [own, weight] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([own[r], weight]) };
                sums[r][c] = _mm512_dpbf16_ps(sums[r][c], own, weight);
            }
        }
    }
    for r in 0..R {
        if r == rows {
            return;
        }
        for c in 0..C {
            // SAFETY: by the caller.
            unsafe { *out.add(r * stride + c) += _mm512_reduce_add_ps(sums[r][c]) };
        }
    }
}
