//! `x · Wᵀ` on AVX-512, in tiles of dot products that read the weight as it lies in the file.
//!
//! A tile of 4 rows and 4 outputs stays in registers while it goes along a block of `in`. `x` is laid out tile by tile first, so
//! that it is read in one stream; 4 rows of the weight stay in the L1 cache while a group of tiles of `x` passes by, and that
//! group stays in the L2 cache for all outputs of a thread's chunk.

use std::{arch::x86_64::*, marker::PhantomData};

use half::{bf16, f16};
use rayon::prelude::*;

use super::{columns::Columns, rounded::nearest};

/// Rows and outputs of a tile: with more, the compiler keeps some of the sums in memory.
const ROWS: usize = 4;
const OUTPUTS: usize = 4;
/// Inputs gone along at a time: 4 rows of the weight and 4 of `x` are about an L1 cache.
const BLOCK: usize = 2048;
/// Rows of `x` whose block stays in the L2 cache.
const GROUP: usize = 16 * ROWS;
/// Outputs that a thread takes at a time.
const CHUNK: usize = 24 * OUTPUTS;

/// How a tile is multiplied.
pub(super) trait Kind {
    /// What `x` is laid out in.
    type X: Copy + Default + Send + Sync;
    /// The weight.
    type W: Sync;
    /// Inputs that an instruction takes.
    const WIDTH: usize;

    /// Whether the processor can.
    fn is_there() -> bool;

    /// `x` as it is laid out.
    fn convert(x: f32) -> Self::X;

    /// Adds the products of `length` inputs to the result.
    ///
    /// # Safety
    /// [`Self::is_there`]; `x` must hold `length / WIDTH` times `R` runs of `WIDTH` numbers, `weight` `C` rows of `length` numbers
    /// that are `inner` apart, a multiple of `WIDTH`; `out` must have room for `C` numbers in each of `rows` rows that are `stride`
    /// apart, at most `R`.
    unsafe fn tile<const R: usize, const C: usize>(
        x: *const Self::X,
        weight: *const Self::W,
        sizes: [usize; 2],
        out: *mut f32,
        stride: usize,
        rows: usize,
    );
}

/// Both factors bf16, `x` rounded to it, 32 pairs by an instruction.
pub(super) enum Rounded {}

/// `x` and sums f32, the weight widened to it in registers.
pub(super) struct Wide<W>(PhantomData<W>);

/// Implements a [`Kind`]: the features of its tile, how 64 bytes of `x` and as many numbers of the weight are loaded, and what an
/// instruction does with them.
macro_rules! kind {
    ($kind:ty, $x:ty, $w:ty, $width:literal, [$($feature:tt),*], $convert:expr, $load_x:expr, $load:expr, $add:expr) => {
        impl Kind for $kind {
            type X = $x;
            type W = $w;
            const WIDTH: usize = $width;

            fn is_there() -> bool {
                $(is_x86_feature_detected!($feature))&&*
            }

            #[inline(always)]
            fn convert(x: f32) -> $x {
                $convert(x)
            }

            #[allow(clippy::needless_range_loop)]
            $(#[target_feature(enable = $feature)])*
            unsafe fn tile<const R: usize, const C: usize>(
                x: *const $x,
                weight: *const $w,
                [inner, length]: [usize; 2],
                out: *mut f32,
                stride: usize,
                rows: usize,
            ) {
                let (load_x, load, add) = ($load_x, $load, $add);
                let mut sums = [[_mm512_setzero_ps(); C]; R];
                let mut own = [load_x(x); R];
                // Plain loops: a closure handed to a function without these features is not inlined, and the sums leave
                // the registers.
                for at in (0..length).step_by($width) {
                    for (r, own) in own.iter_mut().enumerate() {
                        // SAFETY: a run of a row is here, by the caller.
                        *own = load_x(unsafe { x.add(at * R + r * $width) });
                    }
                    for c in 0..C {
                        // SAFETY: as above.
                        let weight = load(unsafe { weight.add(c * inner + at) });
                        for r in 0..R {
                            sums[r][c] = add(own[r], weight, sums[r][c]);
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
        }
    };
}

// SAFETY: of all blocks here, by the caller of a tile: it holds what is loaded.
kind!(
    Rounded,
    bf16,
    bf16,
    32,
    ["avx512f", "avx512bf16"],
    |x| bf16::from_bits(nearest(x)),
    |x: *const bf16| unsafe { _mm512_loadu_si512(x.cast()) },
    |weight: *const bf16| unsafe { _mm512_loadu_si512(weight.cast()) },
    |x: __m512i, weight: __m512i, sum: __m512| {
        // SAFETY: both types are 512 bits of anything.
        let [x, weight] = unsafe { std::mem::transmute::<[__m512i; 2], [__m512bh; 2]>([x, weight]) };
        _mm512_dpbf16_ps(sum, x, weight)
    }
);
kind!(
    Wide<f32>,
    f32,
    f32,
    16,
    ["avx512f"],
    |x| x,
    |x: *const f32| unsafe { _mm512_loadu_ps(x) },
    |weight: *const f32| unsafe { _mm512_loadu_ps(weight) },
    |x: __m512, weight: __m512, sum: __m512| _mm512_fmadd_ps(x, weight, sum)
);
kind!(
    Wide<f16>,
    f32,
    f16,
    16,
    ["avx512f"],
    |x| x,
    |x: *const f32| unsafe { _mm512_loadu_ps(x) },
    |weight: *const f16| unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(weight.cast())) },
    |x: __m512, weight: __m512, sum: __m512| _mm512_fmadd_ps(x, weight, sum)
);
kind!(
    Wide<bf16>,
    f32,
    bf16,
    16,
    ["avx512f"],
    |x| x,
    |x: *const f32| unsafe { _mm512_loadu_ps(x) },
    |weight: *const bf16| unsafe {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(weight.cast()))))
    },
    |x: __m512, weight: __m512, sum: __m512| _mm512_fmadd_ps(x, weight, sum)
);

/// `x` block by block of inputs, tile by tile of rows, instruction by instruction, row by row; missing rows are 0.
fn pack<K: Kind>(x: &[f32], rows: usize, inner: usize) -> Vec<K::X> {
    let tiles = rows.div_ceil(ROWS);
    let mut packed = vec![K::X::default(); tiles * ROWS * inner];
    let mut rest = &mut packed[..];
    for from in (0..inner).step_by(BLOCK) {
        let length = BLOCK.min(inner - from);
        let (block, later) = rest.split_at_mut(tiles * ROWS * length);
        rest = later;
        block.par_chunks_mut(ROWS * length).enumerate().for_each(|(tile, block)| {
            for (step, block) in block.chunks_exact_mut(ROWS * K::WIDTH).enumerate() {
                for (r, to) in block.chunks_exact_mut(K::WIDTH).enumerate() {
                    let row = tile * ROWS + r;
                    if row < rows {
                        convert::<K>(&x[row * inner + from + step * K::WIDTH..][..K::WIDTH], to);
                    }
                }
            }
        });
    }
    packed
}

fn convert<K: Kind>(x: &[f32], out: &mut [K::X]) {
    out.iter_mut().zip(x).for_each(|(out, x)| *out = K::convert(*x));
}

/// The product, `[rows, outputs]`; `None` where the processor lacks the instructions, or `inner` is no multiple of their width.
pub(super) fn product<K: Kind>(x: &[f32], weight: &[K::W], [rows, inner, outputs]: [usize; 3]) -> Option<Vec<f32>> {
    if !K::is_there() || !inner.is_multiple_of(K::WIDTH) || inner == 0 {
        return None;
    }
    assert!(x.len() == rows * inner && weight.len() == outputs * inner);
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    let packed = if rows == 1 {
        // One row is a stream already.
        let mut row = vec![K::X::default(); inner];
        convert::<K>(x, &mut row);
        row
    } else {
        pack::<K>(x, rows, inner)
    };
    weight.par_chunks(CHUNK * inner).enumerate().for_each(|(number, weight)| {
        for from in (0..inner).step_by(BLOCK) {
            let length = BLOCK.min(inner - from);
            for group in (0..rows).step_by(GROUP) {
                let rows_here = group..rows.min(group + GROUP);
                for output in (0..weight.len() / inner).step_by(OUTPUTS) {
                    let count = OUTPUTS.min(weight.len() / inner - output);
                    // SAFETY: the weight's rows, the packed tiles and, at the chunk's columns, the result, which no other
                    // thread writes, are there; the processor has the features.
                    unsafe {
                        let weight = weight.as_ptr().add(output * inner + from);
                        let out = columns.at(number * CHUNK + output);
                        if rows == 1 {
                            along::<K, 1>(packed.as_ptr().add(from), weight, [inner, length], out, outputs, 1, count);
                            continue;
                        }
                        let tiles = packed.as_ptr().add(rows.div_ceil(ROWS) * ROWS * from);
                        for row in rows_here.clone().step_by(ROWS) {
                            let (x, out) = (tiles.add(row * length), out.add(row * outputs));
                            along::<K, ROWS>(x, weight, [inner, length], out, outputs, ROWS.min(rows - row), count);
                        }
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
/// As [`Kind::tile`].
unsafe fn along<K: Kind, const R: usize>(
    x: *const K::X,
    weight: *const K::W,
    [inner, length]: [usize; 2],
    out: *mut f32,
    stride: usize,
    rows: usize,
    count: usize,
) {
    // SAFETY: by the caller; outputs one by one are part of the tile.
    unsafe {
        if count == OUTPUTS {
            return K::tile::<R, OUTPUTS>(x, weight, [inner, length], out, stride, rows);
        }
        for c in 0..count {
            K::tile::<R, 1>(x, weight.add(c * inner), [inner, length], out.add(c), stride, rows);
        }
    }
}
