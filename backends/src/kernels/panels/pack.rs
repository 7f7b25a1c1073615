//! `x` as tiles read it.

use rayon::prelude::*;

use super::{BLOCK, Unit};
use crate::kernels::columns::Columns;

/// `x` block by block, in these tile by tile, in these input by input, with the rows of the tile side by side; missing rows are 0.
///
/// # Safety
/// The processor must have the vectors.
pub(super) unsafe fn pack<U: Unit>(x: &[f32], rows: usize, inner: usize) -> Vec<f32> {
    let padded = rows.next_multiple_of(U::LANES);
    let mut packed = Vec::with_capacity(padded * inner);
    let to = Columns(packed.as_mut_ptr());
    (0..inner.div_ceil(BLOCK)).into_par_iter().for_each(|number| {
        let from = number * BLOCK;
        let length = BLOCK.min(inner - from);
        for first in (0..padded).step_by(U::LANES) {
            let tile = first / U::ROWS * U::ROWS;
            let width = U::ROWS.min(padded - tile);
            // SAFETY: inside of the block, which starts at `padded · from`, of the tile's part of it, and of this vector's lanes.
            let to = unsafe { to.at(padded * from + tile * length + first - tile) };
            let whole = if first + U::LANES <= rows { length / U::LANES * U::LANES } else { 0 };
            for at in (0..whole).step_by(U::LANES) {
                // SAFETY: the rows are there and go on for a vector, and so does the block; the processor has the vectors, by the caller.
                unsafe { U::transpose(x.as_ptr().add(first * inner + from + at), inner, to.add(at * width), width) };
            }
            for at in whole..length {
                for lane in 0..U::LANES {
                    let row = first + lane;
                    let value = if row < rows { x[row * inner + from + at] } else { 0.0 };
                    // SAFETY: as above.
                    unsafe { to.add(at * width + lane).write(value) };
                }
            }
        }
    });
    // SAFETY: every lane of every input was written.
    unsafe { packed.set_len(padded * inner) };
    packed
}
