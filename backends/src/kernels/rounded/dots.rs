//! Rounded products by AVX-512's products of pairs of bf16 numbers, in tiles of dot products that read the weight as it
//! lies in the file.
//!
//! A tile of 4 rows and 4 outputs stays in registers while it goes along a block of `in`. `x` is laid out tile by tile
//! first, so that it is read in one stream; 4 rows of the weight stay in the L1 cache while all tiles of `x` pass by.
//! This is for few rows: with more, `x` leaves the L2 cache, and [`super::super::panels::pairs`] is faster.

use std::{arch::x86_64::*, slice};

use half::bf16;
use rayon::prelude::*;

use crate::kernels::{
    columns::Columns,
    elementwise::add_to_rows,
    instructions::{Instructions, has},
    nearest::nearest,
    rows::Rows,
    turns::in_turn,
};

/// The number of rows, and of outputs, of a tile: with more, the compiler keeps some of the sums in memory.
const ROWS: usize = 4;
const OUTPUTS: usize = 4;
/// The number of inputs that an instruction takes.
const WIDTH: usize = 32;
/// The number of inputs in a block: 4 rows of the weight and 4 of `x` fill about an L1 cache.
const BLOCK: usize = 2048;
/// The number of outputs that a thread takes at a time.
const CHUNK: usize = 24 * OUTPUTS;
/// The number of bytes by which prefetches are ahead in a row of the weight, where each row is used once.
const AHEAD: usize = 512;

/// The product `x · Wᵀ`, `[rows, outputs]`, plus `bias` in every row; `None` where the processor lacks the instructions, or `inner` is no
/// multiple of their width.
pub(in crate::kernels) fn product(
    x: &[f32],
    weight: &dyn Rows<bf16>,
    [rows, inner, outputs]: [usize; 3],
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    // Rows that are not read in place would be made anew for every tile of `x`.
    if !has(Instructions::Avx512Bf16) || !weight.in_place() || !inner.is_multiple_of(WIDTH) || inner == 0 {
        return None;
    }
    assert!(x.len() == rows * inner);
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    let packed = if rows == 1 {
        // A single row is one stream already.
        x.iter().map(|x| nearest(*x)).collect()
    } else {
        pack(x, rows, inner)
    };
    // A single row is read as a whole: memory gives most to long streams.
    let block = if rows == 1 { inner } else { BLOCK };
    in_turn(outputs.div_ceil(CHUNK), |(): &mut (), number| {
        let (first, count) = (number * CHUNK, CHUNK.min(outputs - number * CHUNK));
        // SAFETY: a weight that is read in place lies row after row.
        let weight = unsafe { slice::from_raw_parts(weight.place(first, 0).cast::<bf16>(), count * inner) };
        for from in (0..inner).step_by(block) {
            let length = block.min(inner - from);
            for output in (0..weight.len() / inner).step_by(OUTPUTS) {
                let count = OUTPUTS.min(weight.len() / inner - output);
                // SAFETY: the weight's rows, the packed tiles and, at the chunk's columns, the result, which no other
                // thread writes, are there; the processor has the features.
                unsafe {
                    let weight = weight.as_ptr().add(output * inner + from);
                    let out = columns.at(number * CHUNK + output);
                    if rows == 1 {
                        run::<1>(packed.as_ptr().add(from), weight, [inner, length], out, outputs, 1, count);
                        continue;
                    }
                    let tiles = packed.as_ptr().add(rows.div_ceil(ROWS) * ROWS * from);
                    for row in (0..rows).step_by(ROWS) {
                        let (x, out) = (tiles.add(row * length), out.add(row * outputs));
                        run::<ROWS>(x, weight, [inner, length], out, outputs, ROWS.min(rows - row), count);
                    }
                }
            }
        }
    });
    add_to_rows(&mut out, bias);
    Some(out)
}

/// Packs `x` block by block of inputs, tile by tile of rows, instruction by instruction, row by row; missing rows are 0.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<u16> {
    let tiles = rows.div_ceil(ROWS);
    let mut packed = vec![0; tiles * ROWS * inner];
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
                        let x = &x[row * inner + from + step * WIDTH..][..WIDTH];
                        to.iter_mut().zip(x).for_each(|(to, x)| *to = nearest(*x));
                    }
                }
            }
        });
    }
    packed
}

/// Adds the products of a tile of `rows` rows and `count` outputs to the result.
///
/// # Safety
/// As [`tile`].
unsafe fn run<const R: usize>(
    x: *const u16,
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
/// The processor must have the features; `x` must hold `length / WIDTH` times `R` runs of `WIDTH` numbers, `weight` `C`
/// rows of `length` numbers that are `inner` apart, a multiple of `WIDTH`; `out` must have room for `C` numbers in each
/// of `rows` rows that are `stride` apart, at most `R`.
#[allow(clippy::needless_range_loop)]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn tile<const R: usize, const C: usize>(
    x: *const u16,
    weight: *const bf16,
    [inner, length]: [usize; 2],
    out: *mut f32,
    stride: usize,
    rows: usize,
) {
    // SAFETY: 512 bits of anything.
    let load = |at: *const u16| unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(at.cast())) };
    let mut sums = [[_mm512_setzero_ps(); C]; R];
    let mut own = [load(x); R];
    // These are plain loops: a closure in a function without these features is not inlined, and the sums leave the registers.
    for at in (0..length).step_by(WIDTH) {
        for (r, own) in own.iter_mut().enumerate() {
            // SAFETY: a run of a row is here, by the caller.
            *own = load(unsafe { x.add(at * R + r * WIDTH) });
        }
        for c in 0..C {
            // SAFETY: as above.
            let weight = unsafe { weight.add(c * inner + at) };
            if R == 1 {
                // This is a hint, and cannot fault.
                _mm_prefetch::<_MM_HINT_T0>(weight.wrapping_byte_add(AHEAD).cast());
            }
            let weight = load(weight.cast());
            for r in 0..R {
                sums[r][c] = _mm512_dpbf16_ps(sums[r][c], own[r], weight);
            }
        }
    }
    for r in 0..rows.min(R) {
        for c in 0..C {
            // SAFETY: by the caller.
            unsafe { *out.add(r * stride + c) += _mm512_reduce_add_ps(sums[r][c]) };
        }
    }
}
