//! Products of numbers rounded to bf16.
//!
//! The weight is the left factor, copied block by block from the file into lines of the cache. `x` is the right factor,
//! laid out once as the unit reads it: for 32 rows, 32 inputs at a time, as pairs of inputs, row by row. There are two
//! ways through the weight, one for when reading it takes the time, the other for when multiplying does:
//!
//! - Few rows: 32 outputs at a time, whole rows of the weight, so that memory is read in long streams. While a block is
//!   multiplied, the next one is copied.
//! - Many rows: 128 outputs at a time, which stay in the L2 cache while all rows of `x` pass by.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{
    line::{Line, WIDTH},
    transpose::TILE,
    unit::{PAIR, PREFETCHED, Prefetch, Sums, TileConfig, is_there, multiply, pack_rest, pack_tile},
};
use crate::kernels::{columns::Columns, rows::Rows, turns::in_turn};

/// A way through the weight.
struct Way {
    /// The number of pairs of tiles of outputs in a block.
    pairs: usize,
    /// The largest number of steps of 32 inputs in a block.
    steps: usize,
    /// The number of blocks of outputs that a thread takes at a time.
    span: usize,
    /// Whether the next block is copied while one is multiplied; blocks are then one pair of tiles.
    ahead: bool,
}

const FEW: Way = Way { pairs: 1, steps: 128, span: 16, ahead: true };
const MANY: Way = Way { pairs: 4, steps: 128, span: 1, ahead: false };
/// The number of rows of the weight that are read at once: memory gives more to several streams than to one.
const AT_ONCE: usize = 4;
/// The number of rows from which on `x` does not stay in the L2 cache.
const MANY_ROWS: usize = 256;

/// A block of the weight: some rows of a thread's part, and some steps of their inputs.
#[derive(Clone)]
struct Block {
    pairs: Range<usize>,
    steps: Range<usize>,
}

/// The buffers of a thread.
#[derive(Default)]
struct Scratch {
    sums: Vec<Sums>,
    /// The current block, and the next.
    blocks: [Vec<Line>; 2],
    /// Parts of rows that are not read in place.
    parts: [Vec<bf16>; AT_ONCE],
}

/// The product `x · Wᵀ`, `[rows, outputs]`, plus `bias` in every row, of `x` `[rows, inner]` rounded to bf16 and `weight` `[outputs, inner]`;
/// `None` where there is no matrix unit, or for sizes that it is not made for.
pub(in crate::kernels) fn product(
    x: &[f32],
    weight: &dyn Rows<bf16>,
    [rows, inner, outputs]: [usize; 3],
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    // A single row takes as long as reading the weight, and needs no matrix unit.
    let fits = rows > 1 && inner >= WIDTH && outputs >= PAIR;
    if !fits || !is_there() {
        return None;
    }
    assert!(x.len() == rows * inner && bias.is_none_or(|bias| bias.len() == outputs));
    let way = if rows < MANY_ROWS { FEW } else { MANY };
    let packed = pack(x, rows, inner);
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    let span = way.span * way.pairs * PAIR;
    in_turn(outputs.div_ceil(span), |scratch, number| {
        let own = number * span..outputs.min((number + 1) * span);
        let _config = TileConfig::configured();
        // SAFETY: the unit is there and configured; the rows are those of the result, in columns that no other thread writes.
        unsafe { part(&way, &packed, (weight, own, bias), [rows, inner, outputs], scratch, columns.at(number * span)) };
    });
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    Some(out)
}

/// Writes the outputs of some rows of the weight to `out`.
///
/// # Safety
/// The unit must be there and configured; `out` must have room for `rows` rows, `outputs` apart.
unsafe fn part(
    way: &Way,
    packed: &[Line],
    (weight, own, bias): (&dyn Rows<bf16>, Range<usize>, Option<&[f32]>),
    [rows, inner, outputs]: [usize; 3],
    Scratch { sums, blocks: [block_lines, next_lines], parts }: &mut Scratch,
    out: *mut f32,
) {
    let (groups, numbers) = (rows.div_ceil(PAIR), inner.next_multiple_of(WIDTH));
    sums.resize(groups * way.pairs, Sums::ZERO);
    // Lines are copied ahead as a whole, and so are groups of rows.
    let ahead_there = way.ahead && weight.in_place() && numbers == inner && own.len().is_multiple_of(PAIR);
    let blocks = blocks(way, own.len().div_ceil(PAIR), numbers / WIDTH);
    let weight = Part { weight, own: own.clone(), inner };
    let mut ready = false;
    for (i, Block { pairs, steps }) in blocks.iter().cloned().enumerate() {
        if !ready {
            // SAFETY: whoever has the matrix unit has AVX-512; so below.
            unsafe { copy(&weight, &blocks[i], 0, block_lines, parts) };
        }
        let next = blocks.get(i + 1).filter(|next| ahead_there && next.steps.len() == steps.len());
        ready = next.is_some();
        if ready {
            next_lines.resize(steps.len() * PAIR, Line::ZERO);
        }
        for (group, x) in packed.chunks_exact(numbers).enumerate() {
            let ahead = next.and_then(|next| ahead(&weight, next, group, next_lines));
            let rows = PAIR.min(rows - group * PAIR);
            for (pair, left) in pairs.clone().zip(block_lines.chunks_exact(steps.len() * PAIR)) {
                let sums = &mut sums[group * way.pairs + pair - pairs.start];
                let x = &x[steps.start * PAIR..steps.end * PAIR];
                // SAFETY: the unit is there and configured; the rows of the weight and the lines of the next block are there.
                unsafe { multiply(left, x, rows, steps.start > 0, sums, ahead) };
                if steps.end * WIDTH == numbers {
                    let columns = own.len() - pair * PAIR;
                    // SAFETY: the rows of this group in the columns of this pair, which are in the cache while the bias is added.
                    unsafe {
                        let out = out.add(group * PAIR * outputs + pair * PAIR);
                        sums.write_part(out, outputs, [rows, columns]);
                        if let Some(bias) = bias {
                            add(out, outputs, rows, &bias[weight.own.start + pair * PAIR..][..columns.min(PAIR)]);
                        }
                    }
                }
            }
        }
        if let Some(next) = next {
            // SAFETY: as above.
            unsafe { copy(&weight, next, groups * PREFETCHED, next_lines, parts) };
            std::mem::swap(block_lines, next_lines);
        }
    }
}

/// The blocks of a part of the weight: all steps of some outputs, then of the next outputs. If blocks are copied ahead,
/// they have one length where that is possible.
fn blocks(way: &Way, pairs: usize, steps: usize) -> Vec<Block> {
    let least = steps.div_ceil(way.steps);
    let even = (least..2 * least).find(|count| steps.is_multiple_of(*count)).filter(|_| way.ahead);
    let count = even.unwrap_or(least);
    (0..pairs)
        .step_by(way.pairs)
        .flat_map(|first| {
            (0..count).map(move |i| Block {
                pairs: first..pairs.min(first + way.pairs),
                steps: steps * i / count..steps * (i + 1) / count,
            })
        })
        .collect()
}

/// A part of the weight: some of its rows, with so many inputs.
struct Part<'w> {
    weight: &'w dyn Rows<bf16>,
    own: Range<usize>,
    inner: usize,
}

/// Adds `bias` to `rows` rows, `stride` numbers apart.
///
/// # Safety
/// As many numbers as the bias has must be there in every row.
#[target_feature(enable = "avx512f")]
unsafe fn add(out: *mut f32, stride: usize, rows: usize, bias: &[f32]) {
    for row in 0..rows {
        // SAFETY: by the caller.
        let numbers = unsafe { std::slice::from_raw_parts_mut(out.add(row * stride), bias.len()) };
        numbers.iter_mut().zip(bias).for_each(|(number, bias)| *number += bias);
    }
}

/// The rows of the next block that are copied while a group of rows of `x` is multiplied.
fn ahead(Part { weight, own, .. }: &Part, next: &Block, group: usize, lines: &mut [Line]) -> Option<Prefetch> {
    let row = group * PREFETCHED;
    let own = own.start + next.pairs.start * PAIR + row;
    (row < PAIR).then(|| Prefetch {
        from: weight.place(own, next.steps.start * WIDTH).cast(),
        stride: weight.place(own + 1, 0).addr() - weight.place(own, 0).addr(),
        to: lines[row..].as_mut_ptr(),
    })
}

/// Copies rows of a block, of every pair of tiles from `first` on, to lines; what is not there is 0.
#[target_feature(enable = "avx512f")]
fn copy(
    Part { weight, own, inner }: &Part,
    Block { pairs, steps }: &Block,
    first: usize,
    lines: &mut Vec<Line>,
    parts: &mut [Vec<bf16>; AT_ONCE],
) {
    lines.resize(pairs.len() * steps.len() * PAIR, Line::ZERO);
    for (pair, lines) in pairs.clone().zip(lines.chunks_exact_mut(steps.len() * PAIR)) {
        for row in (first..PAIR).step_by(AT_ONCE) {
            let mut parts = parts.iter_mut();
            let inputs = steps.start * WIDTH..*inner.min(&(steps.end * WIDTH));
            let rows: [&[bf16]; AT_ONCE] = std::array::from_fn(|i| match parts.next() {
                Some(part) if own.start + pair * PAIR + row + i < own.end => {
                    weight.part(own.start + pair * PAIR + row + i, inputs.clone(), part)
                }
                _ => &[],
            });
            for (step, lines) in lines.chunks_exact_mut(PAIR).enumerate() {
                for (line, row) in lines[row..].iter_mut().zip(rows) {
                    match row.get(step * WIDTH..(step + 1) * WIDTH) {
                        Some(numbers) => line.0.copy_from_slice(numbers),
                        None => {
                            let rest = row.get(step * WIDTH..).unwrap_or_default();
                            *line = Line::ZERO;
                            line.0[..rest.len()].copy_from_slice(rest);
                        }
                    }
                    prefetch(row.as_ptr().wrapping_add((step + AHEAD_OF_COPY) * WIDTH));
                }
            }
        }
    }
}

/// The number of steps by which prefetches are ahead of the copy.
const AHEAD_OF_COPY: usize = 16;

/// Prefetches a line; any address is allowed.
fn prefetch(line: *const bf16) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which faults nowhere.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

/// Packs `x`, rounded, in groups of 32 rows, the last filled up with zeros; each group as `[inner / 32][2 tiles][16
/// pairs of inputs]`, a line each. Inputs that are no whole line are filled up with zeros, too.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<Line> {
    let numbers = inner.next_multiple_of(WIDTH);
    let count = rows.div_ceil(PAIR) * numbers;
    let mut packed = Vec::with_capacity(count);
    let lines = &mut packed.spare_capacity_mut()[..count];
    lines.par_chunks_mut(numbers).enumerate().for_each(|(group, packed)| {
        for (at, lines) in packed.as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
            let (step, row) = (at / 2, group * PAIR + at % 2 * TILE);
            let rows = x.chunks_exact(inner).skip(row).map(|x| &x[step * WIDTH..]);
            // SAFETY: whoever has the matrix unit has AVX-512.
            unsafe {
                if (step + 1) * WIDTH <= inner {
                    pack_tile(rows.map(|x| &x.as_chunks().0[0]), lines);
                } else {
                    pack_rest(rows, lines);
                }
            }
        }
    });
    // SAFETY: every tile was written.
    unsafe { packed.set_len(count) };
    packed
}
