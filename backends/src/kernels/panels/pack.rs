//! `x` as tiles read it.

use std::{
    ops::{Deref, DerefMut},
    slice,
};

use rayon::prelude::*;

use super::{
    BLOCK, LINE,
    square::{SIDE, transpose},
    tiles,
    unit::Unit,
};
use crate::kernels::columns::Columns;

/// A line of the cache: a vector that lies on two of them takes two loads.
#[derive(Clone)]
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

impl DerefMut for Packed {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// `x` block by block, in these tile by tile, in these input by input, with the columns of the tile side by side; missing columns are 0. An
/// input's columns are a row of `x`, and rows are `stride` apart.
pub(super) fn columns<U: Unit>(x: &[f32], stride: usize, [inner, columns]: [usize; 2]) -> Packed {
    let padded = columns.next_multiple_of(U::LANES);
    let len = padded * inner;
    let lines = vec![Line([0.0; LINE / size_of::<f32>()]); (len * size_of::<f32>()).div_ceil(LINE)];
    let mut packed = Packed { lines, len };
    for (number, block) in packed.chunks_mut(padded * BLOCK).enumerate() {
        let length = block.len() / padded;
        for tile in tiles::<U>(columns) {
            let (width, there) = (tile.vectors * U::LANES, U::ROWS.min(columns - tile.row));
            for (at, to) in block[tile.row * length..][..width * length].chunks_exact_mut(width).enumerate() {
                to[..there].copy_from_slice(&x[(number * BLOCK + at) * stride + tile.row..][..there]);
            }
        }
    }
    packed
}

/// `x` block by block, in these tile by tile, in these input by input, with the rows of the tile side by side; missing rows are 0. Rows of `x` are
/// `stride` apart.
///
/// # Safety
/// The processor must have AVX2.
pub(super) unsafe fn rows<U: Unit>(x: &[f32], stride: usize, [rows, inner]: [usize; 2]) -> Packed {
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + inner);
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
                unsafe { transpose(x.as_ptr().add(first * stride + from + at), stride, to.add(at * width), width) };
            }
            for at in whole..length {
                for lane in 0..SIDE {
                    let row = first + lane;
                    let value = if row < rows { x[row * stride + from + at] } else { 0.0 };
                    // SAFETY: as above.
                    unsafe { to.add(at * width + lane).write(value) };
                }
            }
        }
    });
    Packed { lines, len }
}
