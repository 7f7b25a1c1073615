//! By the matrix unit (AMX) of Intel's server processors: `tdpbf16ps` multiplies 16×32 by 32×16 numbers at once.
//!
//! The weight is the left factor, read as it lies in the file; `x` is the right one, laid out once as the unit wants it: for 32
//! rows, 32 inputs after another, pairs of inputs, row by row. A thread takes 128 outputs and goes along the inputs in blocks
//! whose part of the weight stays in its L2 cache while all rows of `x` pass by; between blocks, sums wait in memory.

use half::bf16;
use rayon::prelude::*;

use super::{
    transpose::TILE,
    unit::{Line, PAIR, Sums, Unit, WIDTH, is_there, multiply, numbers, pack_tile},
};
use crate::kernels::columns::Columns;

/// Outputs that a thread takes at a time, in pairs of tiles.
const CHUNK: usize = 4;
/// Inputs gone along at a time: of 128 outputs, that is 512 KiB of the weight.
const BLOCK: usize = 2048;
/// From here on the part of the weight in a block is copied first: files lay rows across the lines of the cache, of which every load
/// then touches two.
const MANY_ROWS: usize = 256;
/// Fewer rows take the time that reading the weight takes, and need no matrix unit.
const FEW_ROWS: usize = 8;

pub(super) fn product(x: &[f32], weight: &[bf16], [rows, inner, outputs]: [usize; 3]) -> Option<Vec<f32>> {
    let fits = rows > FEW_ROWS && inner.is_multiple_of(WIDTH) && outputs.is_multiple_of(PAIR) && inner > 0;
    if !fits || !is_there() {
        return None;
    }
    assert!(x.len() == rows * inner && weight.len() == outputs * inner);
    let packed = pack(x, rows, inner);
    let groups = rows.div_ceil(PAIR);
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    weight.par_chunks(CHUNK * PAIR * inner).enumerate().for_each_init(
        Default::default,
        |(sums, copy), (number, weight)| {
            let _unit = Unit::configured();
            let sums: &mut Vec<Sums> = sums;
            sums.resize(groups * CHUNK, Sums::ZERO);
            for (from, to) in blocks(inner) {
                let block =
                    if rows < MANY_ROWS { (&weight[from..], inner) } else { aligned(weight, inner, [from, to], copy) };
                for (group, x) in packed.chunks_exact(inner).enumerate() {
                    for pair in 0..weight.len() / (PAIR * inner) {
                        let sums = &mut sums[group * CHUNK + pair];
                        let (block, stride) = (&block.0[pair * PAIR * block.1..], block.1);
                        // SAFETY: the unit is there and configured; the block lies in the weight's rows and in the group.
                        unsafe { multiply(block, stride, &x[from..to], from > 0, sums) };
                        if to == inner {
                            let at = group * PAIR * outputs + (number * CHUNK + pair) * PAIR;
                            // SAFETY: the rows of this group in the columns of this chunk.
                            unsafe { sums.write(columns.at(at), outputs, PAIR.min(rows - group * PAIR)) };
                        }
                    }
                }
            }
        },
    );
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    Some(out)
}

/// Blocks of inputs of about the same length, each a multiple of what an instruction takes.
fn blocks(inner: usize) -> impl Iterator<Item = (usize, usize)> {
    let (steps, count) = (inner / WIDTH, inner.div_ceil(BLOCK));
    (0..count).map(move |i| (steps * i / count * WIDTH, steps * (i + 1) / count * WIDTH))
}

/// Inputs `from..to` of all rows of a weight, in `copy`, and how far apart its rows are there: one line more than they are long,
/// so that 32 of them do not fall on the same places of the cache.
fn aligned<'a>(weight: &[bf16], inner: usize, [from, to]: [usize; 2], copy: &'a mut Vec<Line>) -> (&'a [bf16], usize) {
    let stride = to - from + WIDTH;
    copy.resize(weight.len() / inner * stride / WIDTH, Line::ZERO);
    let copy = numbers(copy);
    for (row, copy) in weight.chunks_exact(inner).zip(copy.chunks_exact_mut(stride)) {
        copy[..to - from].copy_from_slice(&row[from..to]);
    }
    (copy, stride)
}

/// `x` rounded, in groups of 32 rows, the last filled up with zeros; each as `[inner / 32][2 tiles][16 pairs of inputs]`, a line
/// each.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<Line> {
    let mut packed = vec![Line::ZERO; rows.div_ceil(PAIR) * inner];
    packed.par_chunks_mut(inner).enumerate().for_each(|(group, packed)| {
        for (at, lines) in packed.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let (step, row) = (at / 2, group * PAIR + at % 2 * TILE);
            let inputs = x.chunks_exact(inner).skip(row).map(|x| &x[step * WIDTH..][..WIDTH]);
            // SAFETY: whoever has the matrix unit has AVX-512.
            unsafe { pack_tile(inputs, lines) };
        }
    });
    packed
}
