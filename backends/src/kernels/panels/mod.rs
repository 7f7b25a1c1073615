//! `x · Wᵀ` in f32 on AVX-512 or AVX2, for weights of 16 or 32 bits as they lie in the file.
//!
//! A tile is one or two vectors of rows of `x` by some outputs: its sums stay in registers while it goes along a block of inputs, each
//! time with the inputs of all its rows, side by side, times one number of the weight. So only `x` has to be laid out anew; the weight
//! is widened on its way into the cache, a block of some outputs for all rows of `x`. The block of `x` of a tile stays in the L1 cache
//! for all outputs of the chunk, the block of the weight in the L2 cache for all tiles, and what comes next is asked for meanwhile.

mod ahead;
pub(super) mod attend;
mod pack;
mod square;
mod unit;

use self::{
    ahead::Ahead,
    square::{SIDE, transpose},
    unit::{Avx2, Avx512, Unit},
};
use super::{columns::Columns, turns::in_turn, widen::Weight};

/// Vectors of rows in a tile, at most.
const VECTORS: usize = 2;
/// Inputs gone along at a time.
const BLOCK: usize = 256;
/// Outputs that a thread takes at a time, a multiple of a tile's.
const CHUNK: usize = 48;
/// Steps between two requests for the inputs of the next tile.
const PACE: usize = 8;
/// Bytes of a line of the cache.
const LINE: usize = 64;

/// The product, `[rows, outputs]`; `None` where the processor is another, or there is nothing to multiply.
pub(super) fn product<T: Weight>(x: &[f32], weight: &[T], sizes: [usize; 3]) -> Option<Vec<f32>> {
    // SAFETY: the processor has the vectors.
    match Vectors::there().filter(|_| !x.is_empty())? {
        Vectors::Avx512 => Some(unsafe { multiply::<Avx512, T>(x, weight, sizes) }),
        Vectors::Avx2 => Some(unsafe { multiply::<Avx2, T>(x, weight, sizes) }),
    }
}

/// What a processor has; AVX-512 only beside AVX2.
enum Vectors {
    Avx512,
    Avx2,
}

impl Vectors {
    /// The widest ones, if any.
    fn there() -> Option<Self> {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        avx2.then(|| if is_x86_feature_detected!("avx512f") { Self::Avx512 } else { Self::Avx2 })
    }
}

/// What a thread works with.
#[derive(Default)]
struct Scratch {
    /// Of every output of the chunk, a block of inputs.
    block: Vec<f32>,
    /// Tile by tile, of all outputs of the chunk those of the tile's rows.
    sums: Vec<f32>,
}

/// [`product`] on one kind of vectors.
///
/// # Safety
/// The processor must have them, and AVX2.
unsafe fn multiply<U: Unit, T: Weight>(x: &[f32], weight: &[T], [rows, inner, outputs]: [usize; 3]) -> Vec<f32> {
    assert!(x.len() == rows * inner && weight.len() == outputs * inner && CHUNK.is_multiple_of(U::SUMS));
    // SAFETY: the processor has the vectors, by the caller.
    let (packed, padded) = (unsafe { pack::rows::<U>(x, inner, [rows, inner]) }, rows.next_multiple_of(U::LANES));
    let tiles: Vec<Tile> = tiles::<U>(rows).collect();
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    in_turn(outputs.div_ceil(CHUNK), |Scratch { block, sums }, chunk| {
        let chunk = chunk * CHUNK..outputs.min((chunk + 1) * CHUNK);
        let weight = &weight[chunk.start * inner..chunk.end * inner];
        // Outputs that are not there are 0.
        let width = chunk.len().next_multiple_of(U::SUMS);
        zeros(block, width * BLOCK);
        zeros(sums, tiles.len() * width * U::ROWS);
        for from in (0..inner).step_by(BLOCK) {
            let length = BLOCK.min(inner - from);
            for (block, weight) in block.chunks_exact_mut(BLOCK).zip(weight.chunks_exact(inner)) {
                T::widen(&weight[from..][..length], &mut block[..length]);
            }
            let turns = tiles.iter().map(|tile| width * tile.vectors / U::SUMS).sum();
            let mut ahead = Ahead::new(weight, [inner, from + length], turns);
            for (tile, sums) in tiles.iter().zip(sums.chunks_exact_mut(width * U::ROWS)) {
                let x = &packed[padded * from + tile.row * length..][..length * tile.vectors * U::LANES];
                // SAFETY: the processor has the vectors, by the caller.
                unsafe { by_groups::<U>(x, tile.vectors, block, (sums, U::ROWS), || ahead.ask()) };
            }
        }
        for (tile, sums) in tiles.iter().zip(sums.chunks_exact(width * U::ROWS)) {
            let there = [U::ROWS.min(rows - tile.row), chunk.len()];
            // SAFETY: inside of the matrix, in the columns of this chunk; the processor has AVX2, by the caller.
            unsafe { write::<U>(sums, there, columns.at(tile.row * outputs + chunk.start), outputs) };
        }
    });
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    out
}

/// As many zeros.
fn zeros(numbers: &mut Vec<f32>, count: usize) {
    numbers.clear();
    numbers.resize(count, 0.0);
}

/// Adds the products of a block of inputs to the sums of a tile of `vectors`, for all outputs of `weight`, whose sums are `stride` apart; calls
/// `before` every group of outputs.
///
/// # Safety
/// The processor must have the vectors.
#[inline(always)]
unsafe fn by_groups<U: Unit>(
    x: &[f32],
    vectors: usize,
    weight: &[f32],
    (sums, stride): (&mut [f32], usize),
    mut before: impl FnMut(),
) {
    let outputs = U::SUMS / vectors;
    let groups = weight.chunks_exact(outputs * BLOCK).zip(sums.chunks_mut(outputs * stride));
    for (group, (weight, sums)) in groups.enumerate() {
        before();
        let step = U::AHEAD * LINE / size_of::<f32>() * BLOCK / PACE;
        let next = x.as_ptr().wrapping_add(x.len() + group * step);
        // SAFETY: by the caller.
        unsafe { U::along(vectors, x, weight, sums, stride, next) };
    }
}

/// Writes the sums of a tile, which lie output by output, row by row to `to`, where rows are `stride` apart; only those of the `rows` and
/// `outputs` that are there.
///
/// # Safety
/// The processor must have AVX2, and `to` must have room for them.
unsafe fn write<U: Unit>(sums: &[f32], [rows, outputs]: [usize; 2], to: *mut f32, stride: usize) {
    for row in (0..rows).step_by(SIDE) {
        for output in (0..outputs).step_by(SIDE) {
            let (sums, to) = (&sums[output * U::ROWS + row..], to.wrapping_add(row * stride + output));
            let (rows, outputs) = (SIDE.min(rows - row), SIDE.min(outputs - output));
            if rows == SIDE && outputs == SIDE {
                assert!(sums.len() >= (SIDE - 1) * U::ROWS + SIDE);
                // SAFETY: the square is there, by the assertion, and has room, by the caller.
                unsafe { transpose(sums.as_ptr(), U::ROWS, to, stride) };
                continue;
            }
            for row in 0..rows {
                for output in 0..outputs {
                    // SAFETY: as above.
                    unsafe { to.add(row * stride + output).write(sums[output * U::ROWS + row]) };
                }
            }
        }
    }
}

/// Some rows of `x`.
struct Tile {
    row: usize,
    /// Vectors that hold them.
    vectors: usize,
}

/// Tiles of as many rows as there can be, and one for the rest.
fn tiles<U: Unit>(rows: usize) -> impl Iterator<Item = Tile> {
    (0..rows).step_by(U::ROWS).map(move |row| Tile { row, vectors: U::ROWS.min(rows - row).div_ceil(U::LANES) })
}
