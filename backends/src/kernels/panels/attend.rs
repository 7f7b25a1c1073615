//! Attention on tiles, a block of keys at a time. A block of keys and its values are laid out once for all queries, as
//! `x` is in a product. The queries, and then their scores, are laid out as a weight is, a block of inputs side by
//! side. The softmax over several blocks is that of FlashAttention (<https://arxiv.org/abs/2205.14135>): if a later
//! block has a larger score, the sums so far shrink.

use super::{
    BLOCK, CHUNK, by_groups,
    element::PackedElement,
    micro_kernel::{Avx2, Avx512, Avx512Bf16, MicroKernel, Sums},
    pack::{self, Packed},
    prefetch::Prefetch,
    square::SIDE,
    tiles,
};
use crate::{
    Mask,
    kernels::{
        heads::{Head, Heads, NewHead, NewHeads},
        instructions::{Instructions, has},
        turns::in_turn,
        vectors::{largest, on_vectors, replace},
    },
    mask::position,
};

/// The number of queries that are taken together: for as many outputs, a tile prefetches the whole next tile.
const QUERIES: usize = CHUNK;

/// The buffers of a thread.
#[derive(Default)]
struct Scratch<I> {
    /// A scaled query.
    query: Vec<f32>,
    queries: Vec<I>,
    /// The scores of every query with a block of keys.
    scores: Vec<f32>,
    /// The powers of the scores as packed elements, if packed elements are not f32 numbers.
    powers: Vec<I>,
    /// The sums of every query over values; their number is a multiple of a square's side.
    sums: Vec<f32>,
}

/// The keys and values of a head, as tiles read them.
struct Seen<I> {
    keys: Packed<I>,
    values: Packed<I>,
    count: usize,
    head_dim: usize,
    /// The distance from the sums of one query to those of the next.
    stride: usize,
}

/// The running softmax of a query.
#[derive(Clone, Copy)]
struct Running {
    /// The largest score so far.
    best: f32,
    /// The sum of all powers so far.
    total: f32,
}

/// Attention, `softmax(q·kᵀ/√head_dim)·v`, to `out` on vectors of 512 bits; `None`, and nothing written, for a mask or a size that tiles are
/// not made for.
pub(in crate::kernels) fn attend_avx512(heads: [&Heads; 3], mask: Mask, out: &mut NewHeads) -> Option<()> {
    // SAFETY: the processor has the vectors.
    (fits(heads, mask) && has(Instructions::Avx512)).then(|| unsafe { all_heads::<Avx512>(heads, mask, out) })
}

/// [`attend_avx512`] on vectors of 256 bits.
pub(in crate::kernels) fn attend_avx2(heads: [&Heads; 3], mask: Mask, out: &mut NewHeads) -> Option<()> {
    // SAFETY: the processor has the vectors.
    (fits(heads, mask) && has(Instructions::Avx2)).then(|| unsafe { all_heads::<Avx2>(heads, mask, out) })
}

fn fits(heads: [&Heads; 3], mask: Mask) -> bool {
    heads[0].shape[3] <= BLOCK && matches!(mask, Mask::None | Mask::Causal)
}

/// Writes `softmax(q·kᵀ/√head_dim)·v` to `out`, with all factors rounded to bf16. Returns `None`, and writes nothing,
/// where the processor lacks the instructions, or for a mask or a size that this is not made for.
pub(in crate::kernels) fn attend_bf16(heads: [&Heads; 3], mask: Mask, out: &mut NewHeads) -> Option<()> {
    let fits = heads[0].shape[2] > 1 && fits(heads, mask);
    // SAFETY: the processor has the vectors.
    (fits && has(Instructions::Avx512Bf16)).then(|| unsafe { all_heads::<Avx512Bf16>(heads, mask, out) })
}

/// # Safety
/// The processor must have the vectors, and AVX2.
unsafe fn all_heads<U: MicroKernel>([q, k, v]: [&Heads; 3], mask: Mask, out: &mut NewHeads) {
    in_turn(q.count(), |scratch, i| {
        // SAFETY: by the caller, and every number is taken once.
        unsafe { one_head::<U>(scratch, [q.head(i), k.shared_by(q, i), v.shared_by(q, i)], mask, out.head(i)) };
    });
}

/// # Safety
/// The processor must have the vectors, and AVX2.
unsafe fn one_head<U: MicroKernel>(
    scratch: &mut Scratch<U::Element>,
    [q, k, v]: [Head; 3],
    mask: Mask,
    mut out: NewHead,
) {
    // SAFETY: by the caller.
    let keys = unsafe { pack::rows::<U>(k.numbers(), k.stride, [k.rows, k.columns]) };
    let values = pack::columns::<U>(v.numbers(), v.stride, [v.rows, v.columns]);
    let stride = q.columns.next_multiple_of(SIDE);
    let seen = Seen { keys, values, count: k.rows, head_dim: q.columns, stride };
    let scale = (q.columns as f32).sqrt().recip();
    for from in (0..q.rows).step_by(QUERIES) {
        let block = from..q.rows.min(from + QUERIES);
        let ends: Vec<usize> =
            block.clone().map(|query| mask.seen(position(query, q.rows, k.rows), k.rows)[2]).collect();
        // Missing queries have the values of earlier ones, and their results are not read.
        let width = block.len().next_multiple_of(U::SUMS);
        scratch.queries.resize(width * BLOCK, U::Element::default());
        for (query, to) in block.clone().zip(scratch.queries.chunks_exact_mut(BLOCK)) {
            scratch.query.clear();
            scratch.query.extend(q.row(query).iter().map(|x| scale * x));
            // SAFETY: by the caller.
            unsafe { U::Element::of(&scratch.query, &mut to[..q.columns.div_ceil(U::Element::NUMBERS)]) };
        }
        scratch.sums.resize(width * stride, 0.0);
        let mut running = [Running { best: f32::NEG_INFINITY, total: 0.0 }; QUERIES];
        for first in (0..ends[block.len() - 1]).step_by(BLOCK * U::Element::NUMBERS) {
            // SAFETY: by the caller.
            unsafe { one_block::<U>(scratch, &seen, first, &ends, &mut running) };
        }
        for ((query, sums), running) in block.zip(scratch.sums.chunks_exact(stride)).zip(&running) {
            let share = running.total.recip();
            out.row_mut(query).iter_mut().zip(sums).for_each(|(out, sum)| *out = share * sum);
        }
    }
}

/// Adds the block of keys from `first` to the sums of all queries, which see the keys before their `ends`.
///
/// # Safety
/// The processor must have the vectors.
unsafe fn one_block<U: MicroKernel>(
    scratch: &mut Scratch<U::Element>,
    seen: &Seen<U::Element>,
    first: usize,
    ends: &[usize],
    running: &mut [Running],
) {
    let Scratch { queries, scores, powers, sums, .. } = scratch;
    let &Seen { count, head_dim, stride, .. } = seen;
    let numbers = U::Element::NUMBERS;
    let (keys, elements) = (BLOCK * numbers, head_dim.div_ceil(numbers));
    let last = ends[ends.len() - 1].min(first + keys);
    scores.resize(queries.len() * numbers, 0.0);
    powers.resize(if numbers > 1 { queries.len() } else { 0 }, U::Element::default());
    for tile in tiles::<U>(count).skip(first / U::ROWS).take_while(|tile| tile.row < last) {
        let x = &seen.keys[tile.row * elements..][..tile.lanes * elements];
        let sums = Sums { numbers: &mut scores[tile.row - first..], stride: keys, fresh: true };
        // SAFETY: by the caller.
        unsafe { by_groups::<U>(&tile, x, queries, sums, &mut Prefetch::nothing(x)) };
    }
    // The number of packed elements in the block, and of those that any query sees.
    let there = keys.min(count - first).div_ceil(numbers);
    let met = (last - first).div_ceil(numbers);
    on_vectors!({
        let rows = scores.chunks_exact_mut(keys).zip(sums.chunks_exact_mut(stride)).zip(running);
        for (query, (end, ((scores, sums), running))) in ends.iter().zip(rows).enumerate() {
            let scores = &mut scores[..met * numbers];
            let (seen, hidden) = scores.split_at_mut(end.clamp(&first, &last) - first);
            hidden.fill(0.0);
            softmax::<U::Element>(seen, running, sums);
            if numbers > 1 {
                // SAFETY: by the caller.
                unsafe { U::Element::of(scores, &mut powers[query * BLOCK..][..met]) };
            }
        }
    });
    let powers = U::Element::either(scores, powers);
    for tile in tiles::<U>(head_dim) {
        let x = &seen.values[first / numbers * stride + tile.row * there..][..met * tile.lanes];
        let sums = Sums { numbers: &mut sums[tile.row..], stride, fresh: first == 0 };
        // SAFETY: by the caller.
        unsafe { by_groups::<U>(&tile, x, powers, sums, &mut Prefetch::nothing(x)) };
    }
}

/// Turns the scores of a query into powers, and scales its sums over earlier values to fit. Overflow ends as NaN.
#[inline(always)]
fn softmax<I: PackedElement>(scores: &mut [f32], running: &mut Running, sums: &mut [f32]) {
    let Running { best: before, total } = *running;
    let best = before.max(largest(scores));
    let here = replace(scores, |x| I::exp(x - best));
    let shrinks = I::exp(before - best);
    sums.iter_mut().for_each(|sum| *sum *= shrinks);
    *running = Running { best, total: total * shrinks + here };
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};
    use burn_flex::FlexTensor;

    use super::*;
    use crate::testing::{difference, require};
    use crate::{
        Flex,
        kernels::heads::{random, tensor},
        ops::reference_attend,
    };

    /// Vectors of 16 numbers on any processor, to check the sizes of vectors that most processors do not have.
    struct Plain;

    impl MicroKernel for Plain {
        type Element = f32;
        const SUMS: usize = 24;
        const LANES: usize = 16;

        unsafe fn run(
            lanes: usize,
            x: &[f32],
            weight: &[f32],
            Sums { numbers, stride, fresh }: Sums,
            _: *const f32,
            _: &mut Prefetch,
        ) {
            for (weight, sums) in weight.chunks_exact(BLOCK).zip(numbers.chunks_mut(stride)) {
                sums[..lanes].iter_mut().filter(|_| fresh).for_each(|sum| *sum = 0.0);
                for (x, weight) in x.chunks_exact(lanes).zip(weight) {
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * weight);
                }
            }
        }
    }

    #[test]
    fn tiles_give_the_reference() {
        if !require("avx2") {
            return;
        }
        let wide = require("avx512");
        for (queries, keys, head_dim) in
            [(1, 1, 1), (5, 5, 16), (49, 257, 64), (300, 300, 128), (70, 600, 72), (50, 50, 250)]
        {
            for mask in [Mask::None, Mask::Causal] {
                let [q, k, v] = [queries, keys, keys].map(|tokens| random([1, 2, tokens, head_dim]));
                let expected = reference_attend(q.clone(), k.clone(), v.clone(), mask);
                let inputs: [FlexTensor; 3] = [q, k, v].map(|x| x.into_primitive().tensor());
                let [q, k, v] = inputs.each_ref().map(|x| Heads::of(x).unwrap());
                for unit in ["plain", "avx2", "avx512"].into_iter().filter(|unit| *unit != "avx512" || wide) {
                    let mut buffer = vec![0.0; q.shape.iter().product()];
                    let mut out = NewHeads::of(&mut buffer, q.shape);
                    // SAFETY: each only where the processor has its vectors.
                    unsafe {
                        match unit {
                            "plain" => all_heads::<Plain>([&q, &k, &v], mask, &mut out),
                            "avx2" => all_heads::<Avx2>([&q, &k, &v], mask, &mut out),
                            _ => all_heads::<Avx512>([&q, &k, &v], mask, &mut out),
                        }
                    }
                    let found = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(tensor(buffer, q.shape)));
                    let worst = difference(found, expected.clone());
                    let what = format!("{queries} queries, {keys} keys of {head_dim}, {mask:?}, {unit}");
                    assert!(worst < 1e-5, "{what}: worst difference {worst}");
                }
            }
        }
    }
}
