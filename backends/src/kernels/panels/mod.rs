//! `x · Wᵀ` on AVX-512 or AVX2: in f32, for weights of 16 or 32 bits as they lie in the file, or of numbers in bf16
//! ([`pairs`]).
//!
//! A tile is up to two vectors of rows of `x` by some outputs. Its sums stay in registers while it goes along a block
//! of packed elements (an input, or a pair of inputs). Each step multiplies the packed elements of all its rows, side by side, with one
//! packed element of the weight. So only `x` has to be laid out anew; the weight becomes packed elements on its way into the cache, a block
//! of some outputs for all rows of `x`. The tile's block of `x` stays near the processor for all outputs of the chunk,
//! and the block of the weight in the L2 cache for all tiles. The next blocks are prefetched meanwhile.

pub(super) mod attend;
mod element;
mod micro_kernel;
mod pack;
pub(super) mod pairs;
mod prefetch;
mod square;

use std::iter;

use self::{
    element::{PackedElement, Source},
    micro_kernel::{Avx2, Avx512, MicroKernel, Sums},
    prefetch::Prefetch,
    square::SIDE,
};
use super::{
    columns::Columns,
    instructions::{Instructions, has},
    rows::Rows,
    turns::in_turn,
    widen::Weight,
};

/// The largest number of vectors of rows in a tile.
const VECTORS: usize = 2;
/// The number of packed elements in a block.
const BLOCK: usize = 256;
/// The number of outputs that a thread takes at a time, a multiple of a tile's.
const CHUNK: usize = 48;
/// The number of steps between two prefetches.
const PACE: usize = 8;
/// The number of bytes in a line of the cache.
const LINE: usize = 64;

/// The product `x · Wᵀ`, `[rows, outputs]`; `None` where the processor lacks the vectors, or `x` is empty.
pub(super) fn product<T: Weight>(x: &[f32], weight: &dyn Rows<T>, sizes: [usize; 3]) -> Option<Vec<f32>> {
    if x.is_empty() {
        return None;
    }
    // SAFETY: the processor has the vectors.
    if has(Instructions::Avx512) {
        Some(unsafe { multiply::<Avx512, T>(x, weight, sizes) })
    } else if has(Instructions::Avx2) {
        Some(unsafe { multiply::<Avx2, T>(x, weight, sizes) })
    } else {
        None
    }
}

/// The buffers of a thread.
struct Scratch<I, T> {
    /// A part of a row of the weight, where it is not read in place.
    part: Vec<T>,
    /// A block of packed elements of every output of the chunk.
    block: Vec<I>,
    /// The sums, tile by tile: for all outputs of the chunk, those of the tile's rows.
    sums: Vec<f32>,
}

impl<I, T> Default for Scratch<I, T> {
    fn default() -> Self {
        Self { part: Vec::new(), block: Vec::new(), sums: Vec::new() }
    }
}

/// The product on one kind of vectors; `inner` counts packed elements.
///
/// # Safety
/// The processor must have the vectors, and AVX2.
unsafe fn multiply<U: MicroKernel, T: Source<U::Element>>(
    x: &[f32],
    weight: &dyn Rows<T>,
    [rows, inner, outputs]: [usize; 3],
) -> Vec<f32> {
    let numbers = inner * U::Element::NUMBERS;
    assert!(x.len() == rows * numbers && CHUNK.is_multiple_of(U::SUMS));
    // SAFETY: the processor has the vectors, by the caller.
    let (packed, padded) = (unsafe { pack::rows::<U>(x, numbers, [rows, numbers]) }, rows.next_multiple_of(SIDE));
    let tiles: Vec<Tile> = tiles::<U>(rows).collect();
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    let chunk_of = |number: usize| outputs.min(number * CHUNK)..outputs.min((number + 1) * CHUNK);
    in_turn(outputs.div_ceil(CHUNK), |Scratch { part, block, sums }, number| {
        let chunk = chunk_of(number);
        // This is most likely the thread's next chunk, if all threads take turns.
        let next = chunk_of(number + rayon::current_num_threads());
        // Missing outputs have the values of earlier ones, and are not written.
        let width = chunk.len().next_multiple_of(U::SUMS);
        block.resize(width * BLOCK, U::Element::default());
        sums.resize(tiles.len() * width * U::ROWS, 0.0);
        for from in (0..inner).step_by(BLOCK) {
            let length = BLOCK.min(inner - from);
            let inputs = from * U::Element::NUMBERS..(from + length) * U::Element::NUMBERS;
            for (block, output) in block.chunks_exact_mut(BLOCK).zip(chunk.clone()) {
                T::lay(weight.part(output, inputs.clone(), part), &mut block[..length]);
            }
            let mut ahead = match from + length {
                later if later < inner => {
                    Prefetch::new(weight, &chunk, [numbers, later * U::Element::NUMBERS], BLOCK * U::Element::NUMBERS)
                }
                _ if next.is_empty() => Prefetch::nothing(block),
                _ => Prefetch::new(weight, &next, [numbers, 0], BLOCK * U::Element::NUMBERS),
            };
            for (tile, numbers) in tiles.iter().zip(sums.chunks_exact_mut(width * U::ROWS)) {
                let sums = Sums { numbers, stride: U::ROWS, fresh: from == 0 };
                let x = &packed[padded * from + tile.row * length..][..length * tile.lanes];
                // SAFETY: the processor has the vectors, by the caller.
                unsafe { by_groups::<U>(tile, x, block, sums, &mut ahead) };
            }
        }
        for (tile, sums) in tiles.iter().zip(sums.chunks_exact(width * U::ROWS)) {
            let there = [tile.lanes.min(rows - tile.row), chunk.len()];
            // SAFETY: inside of the matrix, in the columns of this chunk; the processor has AVX2, by the caller.
            unsafe { write::<U>(sums, there, columns.at(tile.row * outputs + chunk.start), outputs) };
        }
    });
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    out
}

/// Adds the products of a block of packed elements to the sums of a tile, for all outputs of `weight`.
///
/// # Safety
/// The processor must have the vectors.
#[inline(always)]
unsafe fn by_groups<U: MicroKernel>(
    tile: &Tile,
    x: &[U::Element],
    weight: &[U::Element],
    Sums { numbers, stride, fresh }: Sums,
    ahead: &mut Prefetch,
) {
    let outputs = tile.outputs::<U>();
    let groups = weight.chunks_exact(outputs * BLOCK).zip(numbers.chunks_mut(outputs * stride));
    for (group, (weight, numbers)) in groups.enumerate() {
        let step = U::AHEAD * LINE / size_of::<f32>() * BLOCK / PACE;
        let next = x.as_ptr().wrapping_add(x.len() + group * step);
        // SAFETY: by the caller.
        unsafe { U::run(tile.lanes, x, weight, Sums { numbers, stride, fresh }, next, ahead) };
    }
}

/// Writes the sums of a tile, which lie output by output, row by row to `to`, where rows are `stride` apart. Only the
/// sums of existing `rows` and `outputs` are written.
///
/// # Safety
/// The processor must have AVX2, and `to` must have room for the sums.
unsafe fn write<U: MicroKernel>(sums: &[f32], [rows, outputs]: [usize; 2], to: *mut f32, stride: usize) {
    for row in (0..rows).step_by(SIDE) {
        for output in (0..outputs).step_by(SIDE) {
            let (sums, to) = (&sums[output * U::ROWS + row..], to.wrapping_add(row * stride + output));
            let (rows, outputs) = (SIDE.min(rows - row), SIDE.min(outputs - output));
            if rows == SIDE && outputs == SIDE {
                assert!(sums.len() >= (SIDE - 1) * U::ROWS + SIDE);
                // SAFETY: the square is there, by the assertion, and has room, by the caller.
                unsafe { f32::transposed(sums.as_ptr(), U::ROWS, to, stride) };
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

/// A tile: some rows of `x`.
struct Tile {
    row: usize,
    /// The number of rows: as many as two vectors hold, one, or half of one. The last rows may be missing.
    lanes: usize,
}

impl Tile {
    /// The number of outputs of the tile: half as many for two vectors.
    fn outputs<U: MicroKernel>(&self) -> usize {
        U::SUMS / self.lanes.div_ceil(U::LANES)
    }
}

/// Tiles of as many rows as there can be, and smaller ones for the rest.
fn tiles<U: MicroKernel>(rows: usize) -> impl Iterator<Item = Tile> {
    let padded = rows.next_multiple_of(SIDE);
    let mut row = 0;
    iter::from_fn(move || {
        let rest = padded - row;
        let lanes = [U::ROWS, U::LANES, SIDE].into_iter().find(|lanes| *lanes <= rest)?;
        row += lanes;
        Some(Tile { row: row - lanes, lanes })
    })
}
