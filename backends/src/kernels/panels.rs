//! `x · Wᵀ` in f32 on AVX-512, for weights of 16 or 32 bits as they lie in the file.
//!
//! A tile is 12 outputs by up to 32 rows of `x`: its sums stay in registers while it goes along a block of inputs, each time with
//! the inputs of all its rows, side by side, times one number of the weight. So only `x` has to be laid out anew; the weight is
//! widened on its way into the cache, row by row, a block of it for all rows of `x`.

use std::{arch::x86_64::*, mem::MaybeUninit};

use rayon::prelude::*;

use super::{columns::Columns, turns::in_turn, widen::Weight};

/// Outputs of a tile.
const OUTPUTS: usize = 12;
/// Numbers in a vector.
const LANES: usize = 16;
/// Vectors of rows in a tile, at most: with more, there are not enough registers.
const VECTORS: usize = 2;
/// Inputs gone along at a time: `x` of a long prompt is then half of an L2 cache.
const BLOCK: usize = 256;
/// Outputs that a thread takes at a time.
const CHUNK: usize = 4 * OUTPUTS;

/// The sums of a tile: of every output, those of its rows.
type Sums = [[f32; VECTORS * LANES]; OUTPUTS];

/// What a thread works with.
struct Scratch {
    /// Of every output of a tile, a block of inputs.
    weight: Vec<f32>,
    /// Of every 12 outputs of the chunk, all rows, tile by tile.
    sums: Vec<Sums>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { weight: vec![0.0; OUTPUTS * BLOCK], sums: Vec::new() }
    }
}

/// The product, `[rows, outputs]`; `None` where the processor is another, or there is nothing to multiply.
pub(super) fn product<T: Weight>(x: &[f32], weight: &[T], [rows, inner, outputs]: [usize; 3]) -> Option<Vec<f32>> {
    if !is_x86_feature_detected!("avx512f") || x.is_empty() {
        return None;
    }
    assert!(x.len() == rows * inner && weight.len() == outputs * inner);
    let packed = pack(x, rows, inner);
    let tiles: Vec<Tile> = tiles(rows).collect();
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    in_turn(outputs.div_ceil(CHUNK), |Scratch { weight: block, sums }, chunk| {
        let chunk = chunk * CHUNK..outputs.min((chunk + 1) * CHUNK);
        sums.clear();
        sums.resize(chunk.len().div_ceil(OUTPUTS) * tiles.len(), [[0.0; VECTORS * LANES]; OUTPUTS]);
        for from in (0..inner).step_by(BLOCK) {
            let length = BLOCK.min(inner - from);
            for (first, sums) in chunk.clone().step_by(OUTPUTS).zip(sums.chunks_exact_mut(tiles.len())) {
                for (i, block) in block.chunks_exact_mut(BLOCK).enumerate() {
                    match (first + i < chunk.end).then(|| &weight[(first + i) * inner + from..][..length]) {
                        Some(weight) => T::widen(weight, &mut block[..length]),
                        None => block.fill(0.0),
                    }
                }
                for (tile, sums) in tiles.iter().zip(sums) {
                    let x =
                        &packed[(tile.row * inner + from * tile.vectors * LANES)..][..length * tile.vectors * LANES];
                    // SAFETY: the processor has AVX-512.
                    unsafe {
                        match tile.vectors {
                            1 => along::<1>(x, block, sums),
                            _ => along::<VECTORS>(x, block, sums),
                        }
                    }
                }
            }
        }
        for (first, sums) in chunk.clone().step_by(OUTPUTS).zip(sums.chunks_exact(tiles.len())) {
            for (tile, sums) in tiles.iter().zip(sums) {
                for row in tile.row..rows.min(tile.row + tile.vectors * LANES) {
                    for (output, sums) in (first..chunk.end).zip(sums) {
                        // SAFETY: inside of the matrix, in a column of this chunk.
                        unsafe { *columns.at(row * outputs + output) = sums[row - tile.row] };
                    }
                }
            }
        }
    });
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    Some(out)
}

/// Some rows of `x`.
struct Tile {
    row: usize,
    /// Vectors that hold them.
    vectors: usize,
}

/// Tiles of as many rows as there can be, and one for the rest.
fn tiles(rows: usize) -> impl Iterator<Item = Tile> {
    const ROWS: usize = VECTORS * LANES;
    (0..rows).step_by(ROWS).map(move |row| Tile { row, vectors: ROWS.min(rows - row).div_ceil(LANES) })
}

/// `x` tile by tile, each input by input, with the rows of the tile side by side; missing rows are 0.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<f32> {
    let count = rows.next_multiple_of(LANES) * inner;
    let mut packed = Vec::with_capacity(count);
    let lines = &mut packed.spare_capacity_mut()[..count];
    lines.par_chunks_mut(VECTORS * LANES * inner).zip(x.par_chunks(VECTORS * LANES * inner)).for_each(|(to, x)| {
        let width = to.len() / inner;
        // A square at a time, so that both sides stay in the cache.
        for from in (0..inner).step_by(LANES) {
            let to = &mut to[from * width..width * inner.min(from + LANES)];
            for lane in 0..width {
                let row = x.chunks_exact(inner).nth(lane).map(|row| &row[from..]);
                for (i, to) in to.chunks_exact_mut(width).enumerate() {
                    to[lane] = MaybeUninit::new(row.map_or(0.0, |row| row[i]));
                }
            }
        }
    });
    // SAFETY: every lane of every input was written.
    unsafe { packed.set_len(count) };
    packed
}

/// Adds the products of a block of inputs to the sums of a tile of `V` vectors.
#[target_feature(enable = "avx512f")]
fn along<const V: usize>(x: &[f32], weight: &[f32], sums: &mut Sums) {
    let steps = x.len() / (V * LANES);
    assert!(x.len() == steps * V * LANES && weight.len() == OUTPUTS * BLOCK && steps <= BLOCK);
    let mut own = [[_mm512_setzero_ps(); V]; OUTPUTS];
    let (x, weight) = (x.as_ptr(), weight.as_ptr());
    for step in 0..steps {
        let mut inputs = [_mm512_setzero_ps(); V];
        for (v, inputs) in inputs.iter_mut().enumerate() {
            // SAFETY: `V` vectors for every step, by the assertion.
            *inputs = unsafe { _mm512_loadu_ps(x.add((step * V + v) * LANES)) };
        }
        for (output, own) in own.iter_mut().enumerate() {
            // SAFETY: a block of every output, by the assertion.
            let weight = _mm512_set1_ps(unsafe { *weight.add(output * BLOCK + step) });
            for v in 0..V {
                own[v] = _mm512_fmadd_ps(inputs[v], weight, own[v]);
            }
        }
    }
    for (own, sums) in own.iter().zip(sums) {
        for (own, sums) in own.iter().zip(sums.chunks_exact_mut(LANES)) {
            // SAFETY: 16 numbers.
            unsafe { _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), *own)) };
        }
    }
}
