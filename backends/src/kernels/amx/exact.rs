//! Products in f32, on a unit that multiplies bf16 numbers. [`super::parts`] splits both factors into parts, and the
//! products of the parts are added up, but for those below the last bit of f32. An f32 weight costs 6 products, an f16
//! weight 5, a bf16 weight 3. The unit makes more than ten times as many of them as the vector units make f32 products.
//! oneMKL calls the scheme bf16x3.
//!
//! Factors are laid out as for [`super::rounded`], part after part in every step.

use std::{arch::x86_64::*, array, ops::Range};

use rayon::prelude::*;

use super::{
    line::{Line, WIDTH},
    parts::{PARTS, load, take_apart},
    terms::{PREFETCHED, Prefetch, multiply},
    transpose::{Square, TILE, transpose},
    unit::{PAIR, Sums, TileConfig, is_there},
};
use crate::kernels::{columns::Columns, rows::Rows, turns::in_turn, widen::Weight};

/// The number of pairs of tiles of outputs that a thread takes at a time.
const PAIRS: usize = 6;
/// The number of steps of 32 inputs in a block, for a weight in one part: a block of both factors then fills about an L2 cache.
const STEPS: usize = 48;
/// The smallest weight, in numbers, that is worth the unit. For smaller ones, the differences that another order of
/// sums makes to small networks are not worth it either.
const LARGE: usize = 1 << 18;
/// The number of rows of the weight that are split at once.
const ROWS: usize = 4;

/// The buffers of a thread.
struct Scratch<T> {
    sums: Vec<Sums>,
    block: Vec<Line>,
    /// Parts of rows that are not read in place.
    parts: [Vec<T>; ROWS],
}

impl<T> Default for Scratch<T> {
    fn default() -> Self {
        Self { sums: Vec::new(), block: Vec::new(), parts: array::from_fn(|_| Vec::new()) }
    }
}

/// The product `x · Wᵀ`, `[rows, outputs]`; `None` without the unit, or for sizes that it is not made for.
pub(in crate::kernels) fn product<T: Weight>(
    x: &[f32],
    weight: &dyn Rows<T>,
    [rows, inner, outputs]: [usize; 3],
) -> Option<Vec<f32>> {
    let fits = inner.is_multiple_of(WIDTH) && outputs.is_multiple_of(PAIR) && inner * outputs >= LARGE;
    if !fits || rows == 0 || !is_there() {
        return None;
    }
    assert!(x.len() == rows * inner);
    let packed = pack(x, rows, inner);
    let mut out = Vec::with_capacity(rows * outputs);
    let columns = Columns(out.as_mut_ptr());
    let span = PAIRS * PAIR;
    in_turn(outputs.div_ceil(span), |scratch: &mut Scratch<T>, number| {
        let own = number * span..outputs.min((number + 1) * span);
        let _config = TileConfig::configured();
        // SAFETY: the unit is there and configured; the rows are those of the result, in columns that no other thread writes.
        unsafe { part(&packed, (weight, own), [rows, inner, outputs], scratch, columns.at(number * span)) };
    });
    // SAFETY: every row of every column was written.
    unsafe { out.set_len(rows * outputs) };
    Some(out)
}

/// Writes the outputs of some rows of the weight to `out`.
///
/// # Safety
/// The unit must be there and configured; `out` must have room for `rows` rows, `outputs` apart.
unsafe fn part<T: Weight>(
    packed: &[Line],
    (weight, own): (&dyn Rows<T>, Range<usize>),
    [rows, inner, outputs]: [usize; 3],
    Scratch { sums, block, parts }: &mut Scratch<T>,
    out: *mut f32,
) {
    let pairs = own.len() / PAIR;
    sums.resize(rows.div_ceil(PAIR) * pairs, Sums::ZERO);
    let mut products = Sums::ZERO;
    let steps = inner / WIDTH;
    for from in (0..steps).step_by(STEPS / T::PARTS) {
        let length = (STEPS / T::PARTS).min(steps - from);
        // SAFETY: whoever has the unit has AVX-512.
        unsafe { copy(weight, &own, [inner, from, length], block, parts) };
        for (group, sums) in sums.chunks_exact_mut(pairs).enumerate() {
            let rows = PAIR.min(rows - group * PAIR);
            let at = (group * inner + from * PAIR) * PARTS;
            let x = &packed[at..][..length * PARTS * PAIR];
            for (pair, (left, sums)) in block.chunks_exact(length * T::PARTS * PAIR).zip(sums).enumerate() {
                let row = (group * pairs + pair) * PREFETCHED % (pairs * PAIR);
                let ahead = Prefetch {
                    weight: weight.place(own.start + row, 0).wrapping_add(weight.bytes((from + length) * WIDTH)).cast(),
                    stride: weight.bytes(inner),
                    step: weight.bytes(WIDTH),
                    x: packed.as_ptr().wrapping_add(at + PARTS * inner + pair * length * PARTS * PAIR / pairs),
                };
                // Every block has its own sum: the fewer sums a number goes through, the less it is rounded.
                // SAFETY: the unit is there and configured.
                unsafe {
                    multiply(T::PARTS, left, x, rows, &mut products, ahead);
                    if from == 0 { *sums = products } else { sums.add(&products) }
                }
            }
        }
    }
    for (group, sums) in sums.chunks_exact(pairs).enumerate() {
        for (pair, sums) in sums.iter().enumerate() {
            // SAFETY: the rows of this group in the columns of this pair.
            unsafe {
                sums.write(out.add(group * PAIR * outputs + pair * PAIR), outputs, PAIR.min(rows - group * PAIR))
            };
        }
    }
}

/// Splits `length` steps of inputs of the weight into parts, from step `from` on: for every 32 outputs, step by step,
/// part by part.
#[target_feature(enable = "avx512f,avx512bf16")]
fn copy<T: Weight>(
    weight: &dyn Rows<T>,
    own: &Range<usize>,
    [inner, from, length]: [usize; 3],
    block: &mut Vec<Line>,
    parts: &mut [Vec<T>; ROWS],
) {
    let outputs = own.len();
    // The distance of the next rows, where rows lie in memory as they are.
    let next = if weight.in_place() { ROWS * weight.bytes(inner) } else { 0 };
    block.resize(outputs * length * T::PARTS, Line::ZERO);
    for output in (0..outputs).step_by(ROWS) {
        let lines = &mut block[output / PAIR * PAIR * length * T::PARTS..][..PAIR * length * T::PARTS];
        // Several rows are read at once: memory gives more to several streams than to one.
        let (mut parts, inputs) = (parts.iter_mut(), from * WIDTH..(from + length) * WIDTH);
        let rows: [&[T]; ROWS] = array::from_fn(|i| match parts.next() {
            Some(part) => weight.part(own.start + output + i, inputs.clone(), part),
            None => &[],
        });
        for (step, lines) in lines.chunks_exact_mut(PAIR * T::PARTS).enumerate() {
            for (i, row) in rows.iter().enumerate() {
                let row = &row[step * WIDTH..][..WIDTH];
                let number = output % PAIR + i;
                // These prefetch the inputs at the same place in the next rows: 128 bytes at most. They are hints, and
                // cannot fault.
                _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_byte_add(next).cast());
                _mm_prefetch::<_MM_HINT_T0>(row.as_ptr().wrapping_byte_add(next + 64).cast());
                let numbers = load(&row.as_chunks().0[0]);
                match T::PARTS {
                    1 => [lines[number]] = take_apart(numbers),
                    2 => [lines[number], lines[PAIR + number]] = take_apart(numbers),
                    _ => [lines[number], lines[PAIR + number], lines[2 * PAIR + number]] = take_apart(numbers),
                }
            }
        }
    }
}

/// Packs `x` in groups of 32 rows, the last filled up with zeros; each group as `[inner / 32][3 parts][2 tiles][16
/// pairs of inputs]`, a line each.
fn pack(x: &[f32], rows: usize, inner: usize) -> Vec<Line> {
    let count = rows.div_ceil(PAIR) * inner * PARTS;
    let mut packed = Vec::with_capacity(count);
    let lines = &mut packed.spare_capacity_mut()[..count];
    lines.par_chunks_mut(inner * PARTS).zip(x.par_chunks(PAIR * inner)).for_each(|(lines, x)| {
        for (step, lines) in lines.chunks_exact_mut(PARTS * PAIR).enumerate() {
            for tile in 0..2 {
                let mut parts = [Square::ZERO; PARTS];
                for (row, x) in x.chunks_exact(inner).skip(tile * TILE).take(TILE).enumerate() {
                    // SAFETY: whoever has the unit has these instructions.
                    let apart: [Line; PARTS] = unsafe { take_apart(load(&x[step * WIDTH..].as_chunks().0[0])) };
                    for (part, line) in parts.iter_mut().zip(apart) {
                        part.0[row] = line.pairs();
                    }
                }
                for (part, square) in parts.iter().enumerate() {
                    let lines = &mut lines[part * PAIR + tile * TILE..][..TILE];
                    // SAFETY: a line is a row of pairs; there are 16.
                    unsafe { transpose(square, lines.as_mut_ptr().cast(), TILE) };
                }
            }
        }
    });
    // SAFETY: every tile was written.
    unsafe { packed.set_len(count) };
    packed
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::kernels::rows::Floats;

    /// Checks that errors are those of f32 sums: a few last bits of the size of such a sum.
    fn check<T: Weight>(narrow: impl Fn(f32) -> T, wide: impl Fn(T) -> f32) {
        if !crate::testing::require("amx") {
            return;
        }
        for sizes in [[1, 4096, 64], [5, 8192, 32], [33, 2080, 160], [48, 1024, 288], [100, 4128, 224]] {
            let [rows, inner, outputs] = sizes;
            // The numbers are scattered, so that sums stay small.
            let number = |i: usize| {
                let bits = (i as u32 ^ 0x9e37_79b9).wrapping_mul(0x85eb_ca6b);
                let bits = (bits ^ bits >> 15).wrapping_mul(0xc2b2_ae35);
                (bits ^ bits >> 16) as f32 / (1u32 << 31) as f32 - 1.0
            };
            let x: Vec<f32> = (0..rows * inner).map(number).collect();
            let weight: Vec<T> = (0..outputs * inner).map(|i| narrow(number(3 * i + 1))).collect();
            let rows_of = Floats { weight: &weight, inner };
            let found = product(&x, &rows_of, sizes).expect("these sizes are what it is made for");
            assert_eq!(found.len(), rows * outputs);
            for (i, found) in found.iter().enumerate() {
                let (row, output) = (i / outputs, i % outputs);
                let pairs = x[row * inner..][..inner].iter().zip(&weight[output * inner..][..inner]);
                let products = pairs.map(|(x, w)| f64::from(*x) * f64::from(wide(*w)));
                let (sum, size) = products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p * p));
                let error = (f64::from(*found) - sum).abs() / f64::sqrt(size);
                assert!(error < 16.0 * f64::from(f32::EPSILON), "{sizes:?} at {i}: {error:e}");
            }
        }
    }

    #[test]
    fn nothing_is_rounded_but_the_sums() {
        check(|x| x, |w| w);
        check(f16::from_f32, f16::to_f32);
        check(bf16::from_f32, bf16::to_f32);
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        let mut x = vec![1.0; 2 * 4096];
        x[4096 + 7] = f32::INFINITY;
        if crate::testing::require("amx") {
            let found = product(&x, &Floats { weight: &vec![0.3f32; 4096 * 64], inner: 4096 }, [2, 4096, 64])
                .expect("as above");
            assert!(found[..64].iter().all(|x| x.is_finite()) && found[64..].iter().all(|x| !x.is_finite()));
        }
    }
}
