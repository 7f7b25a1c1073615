//! Packing of `x` as tiles read it.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
    slice,
};

use rayon::prelude::*;

use super::{BLOCK, LINE, Tile, element::PackedElement, micro_kernel::MicroKernel, square::SIDE, tiles};
use crate::kernels::columns::Columns;

/// A line of the cache: a vector that lies on two of them takes two loads.
#[derive(Clone)]
#[repr(align(64))]
struct Line(#[expect(dead_code, reason = "written and read as numbers")] [f32; LINE / size_of::<f32>()]);

/// A buffer of packed elements that begins on a line of the cache.
pub(super) struct Packed<I> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<I>,
}

impl<I: PackedElement> Deref for Packed<I> {
    type Target = [I];

    fn deref(&self) -> &[I] {
        // SAFETY: lines are packed elements side by side, of which the first `len` were written.
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<I: PackedElement> DerefMut for Packed<I> {
    fn deref_mut(&mut self) -> &mut [I] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl<I: PackedElement> Packed<I> {
    /// The number of lines for `len` packed elements.
    const fn lines(len: usize) -> usize {
        assert!(size_of::<I>() == size_of::<f32>() && align_of::<I>() <= align_of::<Line>());
        (len * size_of::<I>()).div_ceil(LINE)
    }
}

/// Packs `x` block by block, in these tile by tile, in these packed element by packed element, with the columns of the tile side by side;
/// missing columns are 0. A packed element goes down the rows of `x`, which are `stride` apart.
pub(super) fn columns<U: MicroKernel>(x: &[f32], stride: usize, [inner, columns]: [usize; 2]) -> Packed<U::Element> {
    let padded = columns.next_multiple_of(SIDE);
    let len = padded * inner.div_ceil(U::Element::NUMBERS);
    let lines = vec![Line([0.0; LINE / size_of::<f32>()]); Packed::<U::Element>::lines(len)];
    let mut packed = Packed { lines, len, of: PhantomData };
    for (number, block) in packed.chunks_mut(padded * BLOCK).enumerate() {
        let length = block.len() / padded;
        for tile in tiles::<U>(columns) {
            let (width, there) = (tile.lanes, tile.lanes.min(columns - tile.row));
            for (at, to) in block[tile.row * length..][..width * length].chunks_exact_mut(width).enumerate() {
                let first = (number * BLOCK + at) * U::Element::NUMBERS;
                let row = |row: usize| &x[row * stride + tile.row..][..there];
                match U::Element::NUMBERS.min(inner - first) {
                    1 => U::Element::down(&[row(first)], &mut to[..there]),
                    _ => U::Element::down(&[row(first), row(first + 1)], &mut to[..there]),
                }
            }
        }
    }
    packed
}

/// Packs `x` block by block, in these tile by tile, in these packed element by packed element, with the rows of the tile side by side;
/// missing rows are 0. Rows of `x` are `stride` apart.
///
/// # Safety
/// The processor must have AVX2, and the instructions that multiply such packed elements.
pub(super) unsafe fn rows<U: MicroKernel>(x: &[f32], stride: usize, [rows, inner]: [usize; 2]) -> Packed<U::Element> {
    assert!(rows == 0 || x.len() >= (rows - 1) * stride + inner);
    let numbers = U::Element::NUMBERS;
    // The number of packed elements, and of packed elements with no number missing.
    let (elements, full) = (inner.div_ceil(numbers), inner / numbers);
    let padded = rows.next_multiple_of(SIDE);
    let len = padded * elements;
    let mut lines = Vec::<Line>::with_capacity(Packed::<U::Element>::lines(len));
    let to = Columns(lines.as_mut_ptr().cast::<U::Element>());
    (0..elements.div_ceil(BLOCK)).into_par_iter().for_each(|number| {
        let from = number * BLOCK;
        let length = BLOCK.min(elements - from);
        let squares = tiles::<U>(rows).flat_map(|Tile { row, lanes }| {
            let place = move |lane| (row + lane, padded * from + row * length + lane, lanes);
            (0..lanes).step_by(SIDE).map(place)
        });
        for (first, place, width) in squares {
            // SAFETY: inside of the block, which starts at `padded · from`, of the tile's part of it, and of these rows' lanes.
            let to = unsafe { to.at(place) };
            let whole = if first + SIDE <= rows { length.min(full - from) / SIDE * SIDE } else { 0 };
            for at in (0..whole).step_by(SIDE) {
                let x = x[first * stride + (from + at) * numbers..].as_ptr();
                // SAFETY: the rows are there and go on for a square, and so does the block; the processor by the caller.
                unsafe { U::Element::transposed(x, stride, to.add(at * width), width) };
            }
            for at in whole..length {
                for lane in 0..SIDE {
                    let (row, mut element) = (first + lane, U::Element::default());
                    if row < rows {
                        let at = (from + at) * numbers;
                        let x = &x[row * stride + at..][..numbers.min(inner - at)];
                        // SAFETY: the processor by the caller.
                        unsafe { U::Element::of(x, slice::from_mut(&mut element)) };
                    }
                    // SAFETY: as above.
                    unsafe { to.add(at * width + lane).write(element) };
                }
            }
        }
    });
    Packed { lines, len, of: PhantomData }
}
