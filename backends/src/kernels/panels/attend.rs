//! Attention on tiles, a block of keys at a time: it and its values are laid out once for all queries, as a product's `x` is. What they are
//! multiplied with lies as a weight does, a block of inputs side by side: queries, and then their scores. The softmax of several blocks is that
//! of FlashAttention (<https://arxiv.org/abs/2205.14135>): where a later one has a larger score, what is there shrinks.

use super::{
    BLOCK, CHUNK, Vectors, by_groups,
    pack::{self, Packed},
    tiles,
    unit::{Avx2, Avx512, Unit},
    zeros,
};
use crate::{
    Mask,
    kernels::{
        attention::position,
        heads::{Head, Heads},
        turns::in_turn,
        vectors::{exp, largest, on_vectors, sum},
    },
};

/// Queries that are taken together: for as many outputs, a tile asks for the whole next one.
const QUERIES: usize = CHUNK;

/// What a thread works with.
#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    /// Of every query those of a block of keys.
    scores: Vec<f32>,
    /// Of every query its sums over values, a multiple of a vector.
    sums: Vec<f32>,
}

/// Keys and values of a head, as tiles read them.
struct Seen {
    keys: Packed,
    values: Packed,
    count: usize,
    head_dim: usize,
    /// From the sums of one query to those of the next.
    stride: usize,
}

/// The softmax of a query as far as it has come.
#[derive(Clone, Copy)]
struct Running {
    /// The largest score.
    best: f32,
    /// The sum of all powers.
    total: f32,
}

/// `softmax(q·kᵀ/√head_dim)·v` to `out`; `None`, and nothing written, where the processor is another, or for a mask or a size that it is
/// not made for.
pub(in crate::kernels) fn attend(heads: [&Heads; 3], mask: Mask, out: &Heads) -> Option<()> {
    let fits = heads[0].shape[3] <= BLOCK && matches!(mask, Mask::None | Mask::Causal);
    // SAFETY: the processor has the vectors.
    match Vectors::there().filter(|_| fits)? {
        Vectors::Avx512 => unsafe { all_heads::<Avx512>(heads, mask, out) },
        Vectors::Avx2 => unsafe { all_heads::<Avx2>(heads, mask, out) },
    }
    Some(())
}

/// # Safety
/// The processor must have the vectors, and AVX2.
unsafe fn all_heads<U: Unit>(heads: [&Heads; 3], mask: Mask, out: &Heads) {
    in_turn(out.count(), |scratch, i| {
        // SAFETY: by the caller.
        unsafe { one_head::<U>(scratch, heads.map(|heads| heads.head(i)), mask, out.head(i)) };
    });
}

/// # Safety
/// The processor must have the vectors, and AVX2.
unsafe fn one_head<U: Unit>(scratch: &mut Scratch, [q, k, v]: [Head; 3], mask: Mask, mut out: Head) {
    // SAFETY: by the caller.
    let keys = unsafe { pack::rows::<U>(k.numbers(), k.stride, [k.rows, k.columns]) };
    let values = pack::columns::<U>(v.numbers(), v.stride, [v.rows, v.columns]);
    let stride = q.columns.next_multiple_of(U::LANES);
    let seen = Seen { keys, values, count: k.rows, head_dim: q.columns, stride };
    let scale = (q.columns as f32).sqrt().recip();
    for from in (0..q.rows).step_by(QUERIES) {
        let block = from..q.rows.min(from + QUERIES);
        let ends: Vec<usize> =
            block.clone().map(|query| mask.seen(position(query, q.rows, k.rows), k.rows)[2]).collect();
        // Queries that are not there are 0.
        let width = block.len().next_multiple_of(U::SUMS);
        zeros(&mut scratch.queries, width * BLOCK);
        for (query, to) in block.clone().zip(scratch.queries.chunks_exact_mut(BLOCK)) {
            to.iter_mut().zip(q.row(query)).for_each(|(to, x)| *to = scale * x);
        }
        zeros(&mut scratch.sums, width * stride);
        let mut running = [Running { best: f32::NEG_INFINITY, total: 0.0 }; QUERIES];
        for first in (0..ends[block.len() - 1]).step_by(BLOCK) {
            // SAFETY: by the caller.
            unsafe { one_block::<U>(scratch, &seen, first, &ends, &mut running) };
        }
        for ((query, sums), running) in block.zip(scratch.sums.chunks_exact(stride)).zip(&running) {
            let share = running.total.recip();
            out.row_mut(query).iter_mut().zip(sums).for_each(|(out, sum)| *out = share * sum);
        }
    }
}

/// Takes the block of keys from `first` into the sums of all queries, which see the keys before their `ends`.
///
/// # Safety
/// The processor must have the vectors.
unsafe fn one_block<U: Unit>(
    scratch: &mut Scratch,
    seen: &Seen,
    first: usize,
    ends: &[usize],
    running: &mut [Running],
) {
    let Scratch { queries, scores, sums } = scratch;
    let &Seen { head_dim, stride, .. } = seen;
    let (there, last) = (BLOCK.min(seen.count - first), ends[ends.len() - 1].min(first + BLOCK));
    zeros(scores, queries.len());
    for tile in tiles::<U>(seen.count).skip(first / U::ROWS).take_while(|tile| tile.row < last) {
        let x = &seen.keys[tile.row * head_dim..][..tile.vectors * U::LANES * head_dim];
        // SAFETY: by the caller.
        unsafe { by_groups::<U>(x, tile.vectors, queries, (&mut scores[tile.row - first..], BLOCK), || ()) };
    }
    on_vectors(|| {
        let rows = scores.chunks_exact_mut(BLOCK).zip(sums.chunks_exact_mut(stride)).zip(running);
        for (end, ((scores, sums), running)) in ends.iter().zip(rows) {
            let (scores, hidden) = scores.split_at_mut(end.clamp(&first, &last) - first);
            hidden.fill(0.0);
            softmax(scores, running, sums);
        }
    });
    for tile in tiles::<U>(head_dim) {
        let x = &seen.values[first * stride + tile.row * there..][..(last - first) * tile.vectors * U::LANES];
        // SAFETY: by the caller.
        unsafe { by_groups::<U>(x, tile.vectors, scores, (&mut sums[tile.row..], stride), || ()) };
    }
}

/// Turns scores of a query into powers, and makes its sums over earlier values fit to them. What overflowed ends as no number.
#[inline(always)]
fn softmax(scores: &mut [f32], running: &mut Running, sums: &mut [f32]) {
    let Running { best: before, total } = *running;
    let best = before.max(largest(scores));
    scores.iter_mut().for_each(|x| *x = exp(*x - best));
    let shrinks = exp(before - best);
    sums.iter_mut().for_each(|sum| *sum *= shrinks);
    *running = Running { best, total: total * shrinks + sum(scores, scores, |x, _| x) };
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};
    use burn_flex::FlexTensor;

    use super::*;
    use crate::{
        Flex,
        kernels::heads::{random, tensor},
        ops::reference_attend,
    };

    /// Vectors of 16 numbers on any processor, to check the sizes of those that most do not have.
    struct Plain;

    impl Unit for Plain {
        const SUMS: usize = 24;
        const LANES: usize = 16;

        unsafe fn along(vectors: usize, x: &[f32], weight: &[f32], sums: &mut [f32], stride: usize, _: *const f32) {
            let lanes = vectors * Self::LANES;
            for (weight, sums) in weight.chunks_exact(BLOCK).zip(sums.chunks_mut(stride)) {
                for (x, weight) in x.chunks_exact(lanes).zip(weight) {
                    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * weight);
                }
            }
        }
    }

    #[test]
    fn tiles_give_the_reference() {
        if Vectors::there().is_none() {
            return;
        }
        for (queries, keys, head_dim) in
            [(1, 1, 1), (5, 5, 16), (49, 257, 64), (300, 300, 128), (70, 600, 72), (50, 50, 250)]
        {
            for mask in [Mask::None, Mask::Causal] {
                let [q, k, v] = [queries, keys, keys].map(|tokens| random([1, 2, tokens, head_dim]));
                let expected = reference_attend(q.clone(), k.clone(), v.clone(), mask);
                let inputs: [FlexTensor; 3] = [q, k, v].map(|x| x.into_primitive().tensor());
                let [q, k, v] = inputs.each_ref().map(|x| Heads::of(x).unwrap());
                for plain in [false, true] {
                    let mut buffer = vec![0.0; q.shape.iter().product()];
                    let out = Heads::token_major(&mut buffer, q.shape);
                    match plain {
                        false => attend([&q, &k, &v], mask, &out).unwrap(),
                        // SAFETY: needs no vectors of its own, and AVX2 is there.
                        true => unsafe { all_heads::<Plain>([&q, &k, &v], mask, &out) },
                    }
                    let found = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(tensor(buffer, q.shape)));
                    let worst = (found - expected.clone()).abs().max().into_scalar();
                    let what = format!("{queries} queries, {keys} keys of {head_dim}, {mask:?}, plain: {plain}");
                    assert!(worst < 1e-5, "{what}: worst difference {worst}");
                }
            }
        }
    }
}
