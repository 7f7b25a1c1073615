//! Attention on the matrix unit: 32 queries of a head at a time, their scores against all keys in the cache.
//!
//! Keys are the left factor of the scores, so that a score lies at `[key][query]`. The softmax goes along rows with a
//! query in each lane, and its result, two keys to a pair, is already laid out as the right factor of the product with
//! the values. A width of heads that is no multiple of 32 is filled up with zeros.

use std::ops::Range;

use half::bf16;

use super::{
    line::{Line, WIDTH},
    transpose::{Square, TILE, transpose},
    unit::{PAIR, Sums, TileConfig, is_there, multiply, pack_rest, pack_tile},
};
use crate::{
    Mask,
    kernels::{
        heads::{Head, Heads, NewHead, NewHeads},
        nearest::nearest,
        turns::in_turn,
        vectors::exp,
    },
};

/// A number for each of 16 queries.
pub(super) type Lanes = [f32; TILE];

/// The buffers of a thread for one head.
#[derive(Default)]
struct Scratch {
    /// A left factor for every 32 keys.
    keys: Vec<Line>,
    /// A left factor for every 32 columns of the values.
    values: Vec<Line>,
    queries: Vec<Line>,
    scores: Vec<Sums>,
    weights: Vec<Line>,
}

/// Writes `softmax(q·kᵀ/√head_dim)·v` to `out`, with `q`, `k`, `v` and the softmax rounded to bf16 and all sums in f32.
/// Returns `None`, and writes nothing, where there is no matrix unit, or for a mask or a size that it is not made for.
pub(in crate::kernels) fn attend([q, k, v]: [&Heads; 3], mask: Mask, out: &mut NewHeads) -> Option<()> {
    let fits = q.shape[3] >= PAIR && q.shape[2] > 1 && matches!(mask, Mask::None | Mask::Causal);
    if !fits || !is_there() {
        return None;
    }
    in_turn(q.count(), |scratch, i| {
        let _config = TileConfig::configured();
        // SAFETY: the unit is there and configured, whoever has it has AVX-512, and every number is taken once.
        unsafe { one_head(scratch, [q.head(i), k.shared_by(q, i), v.shared_by(q, i)], mask, out.head(i)) };
    });
    Some(())
}

/// # Safety
/// The unit must be there and configured for this thread.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn one_head(scratch: &mut Scratch, [q, k, v]: [Head; 3], mask: Mask, mut out: NewHead) {
    let (width, padded) = (q.columns.next_multiple_of(WIDTH), k.rows.next_multiple_of(PAIR));
    let Scratch { keys, values, queries, scores, weights } = scratch;
    fill_keys(keys, k, padded);
    fill_values(values, v, padded);
    let scale = (q.columns as f32).sqrt().recip();
    for from in (0..q.rows).step_by(PAIR) {
        let to = (from + PAIR).min(q.rows);
        // A query has a position among the keys, and sees no key after it.
        let (first, seen) = match mask {
            Mask::None => (0, k.rows),
            _ => (k.rows - q.rows + from, k.rows - q.rows + to),
        };
        fill_queries(queries, q, from..to);
        let blocks = seen.div_ceil(PAIR);
        scores.resize(blocks, Sums::ZERO);
        // SAFETY: by the caller.
        unsafe { score(scores, keys, queries) };
        weights.resize(blocks * WIDTH, Line::ZERO);
        let mut shares = [[0.0; TILE]; 2];
        for (half, share) in shares.iter_mut().enumerate() {
            let last = (mask == Mask::Causal).then_some(first + half * TILE);
            *share = softmax(scores, weights, half, seen, last, scale);
        }
        for at in (0..width).step_by(PAIR) {
            let mut sums = Sums::ZERO;
            // SAFETY: by the caller; 32 rows of values, and the rows of `out` from `from` to `to`.
            unsafe {
                multiply(&values[at / PAIR * padded..][..weights.len()], weights, PAIR, false, &mut sums, None);
                for (tile, sums) in sums.0.iter_mut().enumerate() {
                    divide(sums, &shares[tile % 2]);
                }
                let (pointer, stride) = out.place(from, at);
                sums.write_part(pointer, stride, [to - from, q.columns - at]);
            }
        }
    }
}

/// Fills `queries` with up to 32 rounded queries as a right factor, then with zeros.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) fn fill_queries(queries: &mut Vec<Line>, q: Head, rows: Range<usize>) {
    let width = q.columns.next_multiple_of(WIDTH);
    queries.clear();
    queries.reserve(width);
    for (at, lines) in queries.spare_capacity_mut()[..width].as_chunks_mut::<TILE>().0.iter_mut().enumerate() {
        let (rows, first) = (rows.start + at % 2 * TILE..rows.end, at / 2 * WIDTH);
        if first + WIDTH <= q.columns {
            pack_tile(rows.map(|row| &q.row(row)[first..].as_chunks().0[0]), lines);
        } else {
            pack_rest(rows.map(|row| &q.row(row)[first..]), lines);
        }
    }
    // SAFETY: every tile was written.
    unsafe { queries.set_len(width) };
}

/// Multiplies as many blocks of 32 keys as there are `scores` with 32 queries.
///
/// # Safety
/// The unit must be there and configured for this thread.
pub(super) unsafe fn score(scores: &mut [Sums], keys: &[Line], queries: &[Line]) {
    let width = queries.len();
    for (scores, keys) in scores.iter_mut().zip(keys.chunks_exact(width)) {
        // SAFETY: by the caller; 32 rows of keys.
        unsafe { multiply(keys, queries, PAIR, false, scores, None) };
    }
}

/// The scores of one half of the queries for a key, a query in each lane.
pub(super) fn lanes(scores: &[Sums], key: usize, half: usize) -> Lanes {
    scores[key / PAIR].0[key % PAIR / TILE * 2 + half].0[key % TILE].map(f32::from_bits)
}

/// Fills `keys` with the rounded keys, then with zeros.
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn fill_keys(keys: &mut Vec<Line>, k: Head, padded: usize) {
    let width = k.columns.next_multiple_of(WIDTH);
    keys.clear();
    keys.resize(padded * width / WIDTH, Line::ZERO);
    for i in 0..k.rows {
        let lines = keys[i / PAIR * width + i % PAIR..].iter_mut().step_by(PAIR);
        for (line, key) in lines.zip(k.row(i).chunks(WIDTH)) {
            line.0.iter_mut().zip(key).for_each(|(to, x)| *to = bf16::from_bits(nearest(*x)));
        }
    }
}

/// Fills `values` with the rounded values, a row for every column of `v`, then with zeros. Pairs of rows, 16 columns at a time, are turned into columns.
#[target_feature(enable = "avx512f,avx512bw")]
fn fill_values(values: &mut Vec<Line>, v: Head, padded: usize) {
    values.clear();
    values.resize(padded * v.columns.next_multiple_of(WIDTH) / WIDTH, Line::ZERO);
    let row = |i: usize, first: usize| {
        let mut numbers: Lanes = [0.0; TILE];
        if i < v.rows {
            let there = &v.row(i)[first..v.columns.min(first + TILE)];
            numbers[..there.len()].copy_from_slice(there);
        }
        numbers
    };
    for first in (0..v.columns).step_by(TILE) {
        for from in (0..v.rows).step_by(WIDTH) {
            let mut tile = Square::ZERO;
            for (pair, to) in tile.0.iter_mut().enumerate() {
                let [low, high] = [0, 1].map(|i| row(from + 2 * pair + i, first));
                for lane in 0..TILE {
                    to[lane] = u32::from(nearest(low[lane])) | u32::from(nearest(high[lane])) << 16;
                }
            }
            let lines = &mut values[first / PAIR * padded + from + first % PAIR..][..TILE];
            // SAFETY: a line is a row of 16 pairs, and there are 16 lines.
            unsafe { transpose(&tile, lines.as_mut_ptr().cast(), TILE) };
        }
    }
}

/// Turns the scores of one half of the queries into powers of e, rounded and laid out as a right factor, and returns
/// each query's sum. Keys from `seen` on do not count. With `last`, keys after a query's own do not count either; the
/// first lane's own key is `last`.
#[target_feature(enable = "avx512f,avx512bw")]
fn softmax(
    scores: &mut [Sums],
    weights: &mut [Line],
    half: usize,
    seen: usize,
    last: Option<usize>,
    scale: f32,
) -> Lanes {
    let mut best = [f32::NEG_INFINITY; TILE];
    let mut check = [0.0f32; TILE];
    let row = |scores: &[Sums], key: usize| lanes(scores, key, half);
    for key in 0..seen {
        let row = row(scores, key);
        for lane in 0..TILE {
            let counts = last.is_none_or(|last| key <= last + lane);
            best[lane] = best[lane].max(if counts { row[lane] } else { f32::NEG_INFINITY });
            // The product is not 0 for infinite scores and NaN, which `max` and `min` would hide.
            check[lane] += if counts { row[lane] * 0.0 } else { 0.0 };
        }
    }
    let mut total = check;
    for (block, lines) in weights.as_chunks_mut::<WIDTH>().0.iter_mut().enumerate() {
        for pair in 0..TILE {
            let key = block * PAIR + 2 * pair;
            let mut rounded = [[0u32; TILE]; 2];
            for (i, rounded) in rounded.iter_mut().enumerate().filter(|(i, _)| key + i < seen) {
                let row = row(scores, key + i);
                for lane in 0..TILE {
                    let power = exp((row[lane] - best[lane]).min(0.0) * scale);
                    let power = if last.is_none_or(|last| key + i <= last + lane) { power } else { 0.0 };
                    total[lane] += power;
                    rounded[lane] = u32::from(nearest(power));
                }
            }
            let line = &mut lines[half * TILE + pair].0;
            for lane in 0..TILE {
                line[2 * lane] = bf16::from_bits(rounded[0][lane] as u16);
                line[2 * lane + 1] = bf16::from_bits(rounded[1][lane] as u16);
            }
        }
    }
    total
}

/// Multiplies the sums of a tile by each query's share.
#[target_feature(enable = "avx512f")]
fn divide(tile: &mut Square, shares: &Lanes) {
    for row in &mut tile.0 {
        for (sum, share) in row.iter_mut().zip(shares) {
            *sum = (f32::from_bits(*sum) / share).to_bits();
        }
    }
}
