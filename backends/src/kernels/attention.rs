//! Attention of many queries, and its gradient: a block of queries at a time, so that only a strip of the score matrix is
//! ever there, and in the cache. On AVX2 and AVX-512, attention itself goes by `panels::attend`, but for [`Mask::Turns`].

use std::ops::Range;

use burn_flex::FlexTensor;

#[cfg(target_arch = "x86_64")]
use super::panels::attend::attend as on_tiles;
use super::{
    heads::{Head, Heads, Matrix, product, tensor},
    turns::in_turn,
    vectors::{exp, on_vectors, sum},
};
use crate::Mask;

/// Queries of a block.
const BLOCK: usize = 64;

/// [`crate::VlmBackend::attend`]; `None` if the tensors are laid out otherwise.
pub(crate) fn attend([q, k, v]: [&FlexTensor; 3], mask: Mask) -> Option<FlexTensor> {
    let (q, k, v) = (Heads::of(q)?, Heads::of(k)?, Heads::of(v)?);
    let mut buffer = vec![0.0; q.shape.iter().product()];
    let out = Heads::token_major(&mut buffer, q.shape);
    if on_tiles([&q, &k, &v], mask, &out).is_none() {
        in_turn(q.count(), |scores, i| {
            forward(scores, [q.head(i), k.shared_by(&q, i), v.shared_by(&q, i)], mask, out.head(i));
        });
    }
    Some(tensor(buffer, q.shape))
}

/// [`crate::VlmBackend::attend_bf16`]; `None` if the processor or the tensors are not made for it.
pub(crate) fn attend_bf16([q, k, v]: [&FlexTensor; 3], mask: Mask) -> Option<FlexTensor> {
    let heads = [Heads::of(q)?, Heads::of(k)?, Heads::of(v)?];
    let mut buffer = vec![0.0; heads[0].shape.iter().product()];
    let out = Heads::token_major(&mut buffer, heads[0].shape);
    ROUNDED.iter().find_map(|attend| attend(heads.each_ref(), mask, &out))?;
    Some(tensor(buffer, heads[0].shape))
}

type Attend = fn([&Heads; 3], Mask, &Heads) -> Option<()>;

/// The fastest first.
const ROUNDED: &[Attend] = &[
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    super::amx::attend::attend,
    #[cfg(target_arch = "x86_64")]
    super::panels::attend::attend_bf16,
];

/// As where the processor has no such vectors.
#[cfg(not(target_arch = "x86_64"))]
fn on_tiles(_: [&Heads; 3], _: Mask, _: &Heads) -> Option<()> {
    None
}

/// [`crate::VlmBackend::attend_backward`]; `None` if the tensors are laid out otherwise.
pub(crate) fn attend_backward([q, k, v]: [&FlexTensor; 3], grad: &FlexTensor, mask: Mask) -> Option<[FlexTensor; 3]> {
    let (q, k, v, grad) = (Heads::of(q)?, Heads::of(k)?, Heads::of(v)?, Heads::of(grad)?);
    // Heads that share keys would add to the same gradient.
    (q.shape[1] == k.shape[1]).then_some(())?;
    let shapes = [q.shape, k.shape, v.shape];
    let mut buffers = shapes.map(|shape| vec![0.0; shape.iter().product()]);
    let [dq, dk, dv] = &mut buffers;
    let out = [(dq, q.shape), (dk, k.shape), (dv, v.shape)].map(|(buffer, shape)| Heads::token_major(buffer, shape));
    in_turn(q.count(), |scratch, i| {
        backward(scratch, [q.head(i), k.head(i), v.head(i)], grad.head(i), mask, [0, 1, 2].map(|x| out[x].head(i)));
    });
    let [dq, dk, dv] = buffers;
    Some([tensor(dq, shapes[0]), tensor(dk, shapes[1]), tensor(dv, shapes[2])])
}

/// The position of a query among the keys, of which the queries are the last. There are more queries than keys only without a mask,
/// where nobody uses it.
pub(super) fn position(query: usize, queries: usize, keys: usize) -> usize {
    (keys + query).saturating_sub(queries)
}

/// Queries that are taken together, and the keys that any of them sees.
struct Block {
    from: usize,
    to: usize,
    /// The position of the first query.
    first: usize,
    /// The keys, side by side in two runs; the second may be empty.
    runs: [Range<usize>; 2],
}

impl Block {
    fn of(queries: usize, keys: usize, mask: Mask) -> impl Iterator<Item = Self> {
        let position = move |query| position(query, queries, keys);
        (0..queries).step_by(BLOCK).map(move |from| {
            let to = (from + BLOCK).min(queries);
            let (first, end) = (position(from), position(to));
            let [before, start, _] = mask.seen(first, keys);
            let runs = match mask {
                Mask::None => [0..keys, 0..0],
                // Runs of other queries' own lie between.
                Mask::Turns { .. } if before < start => [0..before, start..end],
                _ => [0..end, 0..0],
            };
            Self { from, to, first, runs }
        })
    }

    /// How many keys.
    fn keys(&self) -> usize {
        self.runs.iter().map(Range::len).sum()
    }

    /// The runs, each with the columns of the scores that are its own.
    fn columns(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let [before, own] = self.runs.clone();
        let columns = before.len()..before.len() + own.len();
        [(before.clone(), 0..before.len()), (own, columns)].into_iter().filter(|(run, _)| !run.is_empty())
    }
}

fn forward(scores: &mut Vec<f32>, [q, k, v]: [Head; 3], mask: Mask, out: Head) {
    for block in Block::of(q.rows, k.rows, mask) {
        let Block { from, to, .. } = block;
        attention(scores, q.part(from, to), k, &block, mask);
        let scores = Matrix::scores(scores, block.keys());
        for (run, columns) in block.columns() {
            let (add, v) = (columns.start > 0, v.part(run.start, run.end));
            product(out.part(from, to).into(), add, scores.columns(columns), v.into(), 1.0);
        }
    }
}

/// With P the attention and dP = grad·vᵀ, the scores' gradient is P ∘ (dP − rowsum(P ∘ dP)).
fn backward(
    (scores, gradient): &mut (Vec<f32>, Vec<f32>),
    [q, k, v]: [Head; 3],
    grad: Head,
    mask: Mask,
    [dq, dk, dv]: [Head; 3],
) {
    let scale = (q.columns as f32).sqrt().recip();
    for block in Block::of(q.rows, k.rows, mask) {
        let (from, to, keys) = (block.from, block.to, block.keys());
        let (q, grad, dq) = (q.part(from, to), grad.part(from, to), dq.part(from, to));
        attention(scores, q, k, &block, mask);
        gradient.resize(scores.len(), 0.0);
        for (run, columns) in block.columns() {
            let v = Matrix::from(v.part(run.start, run.end)).transposed();
            product(Matrix::scores(gradient, keys).columns(columns), false, grad.into(), v, 1.0);
        }
        on_vectors!({
            for (row, gradient) in scores.chunks(keys).zip(gradient.chunks_mut(keys)) {
                let mean = sum(row, gradient, |p, g| p * g);
                gradient.iter_mut().zip(row).for_each(|(g, p)| *g = scale * p * (*g - mean));
            }
        });
        for (run, columns) in block.columns() {
            let add = columns.start > 0;
            let scores = Matrix::scores(scores, keys).columns(columns.clone());
            let gradient = Matrix::scores(gradient, keys).columns(columns);
            let [k, dk, dv] = [k, dk, dv].map(|head| head.part(run.start, run.end));
            product(dv.into(), true, scores.transposed(), grad.into(), 1.0);
            product(dk.into(), true, gradient.transposed(), q.into(), 1.0);
            product(dq.into(), add, gradient, k.into(), 1.0);
        }
    }
}

/// `softmax(q·kᵀ/√head_dim)` of the block's keys, row by row.
fn attention(scores: &mut Vec<f32>, q: Head, k: Head, block: &Block, mask: Mask) {
    let keys = block.keys();
    scores.resize(q.rows * keys, 0.0);
    let scale = (q.columns as f32).sqrt().recip();
    for (run, columns) in block.columns() {
        let k = Matrix::from(k.part(run.start, run.end)).transposed();
        product(Matrix::scores(scores, keys).columns(columns), false, q.into(), k, scale);
    }
    let [before, own] = &block.runs;
    // Keys between the runs have no column.
    let gap = if own.is_empty() { 0 } else { own.start - before.end };
    on_vectors!({
        for (i, row) in scores.chunks_mut(keys).enumerate() {
            let [shared, from, to] = mask.seen(block.first + i, keys);
            softmax_seen(row, [shared, from - gap, to - gap]);
        }
    });
}

/// The softmax of a row over what it sees, see [`Mask::seen`]; the rest is 0.
#[inline(always)]
fn softmax_seen(row: &mut [f32], [shared, from, to]: [usize; 3]) {
    row[to..].fill(0.0);
    // What is seen side by side, so that the softmax is over one run.
    row.copy_within(from..to, shared);
    softmax(&mut row[..shared + to - from]);
    row.copy_within(shared..shared + to - from, from);
    row[shared..from].fill(0.0);
}

#[inline(always)]
fn softmax(row: &mut [f32]) {
    let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    row.iter_mut().for_each(|x| *x = exp(*x - best));
    let total = sum(row, row, |x, _| x).recip();
    row.iter_mut().for_each(|x| *x *= total);
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tensor, TensorPrimitive};

    use super::*;
    use crate::{Flex, ops::reference_attend};

    /// What every way makes of the same inputs, but for those that are not made for them.
    fn every_way(inputs: [&Tensor<Flex, 4>; 3], mask: Mask) -> impl Iterator<Item = Tensor<Flex, 4>> {
        let inputs: [FlexTensor; 3] = inputs.map(|x| x.clone().into_primitive().tensor());
        ROUNDED.iter().filter_map(move |attend| {
            let [q, k, v] = inputs.each_ref().map(|x| Heads::of(x).unwrap());
            let mut buffer = vec![0.0; q.shape.iter().product()];
            attend([&q, &k, &v], mask, &Heads::token_major(&mut buffer, q.shape))?;
            Some(Tensor::from_primitive(TensorPrimitive::Float(tensor(buffer, q.shape))))
        })
    }

    fn random(tokens: usize, head_dim: usize) -> Tensor<Flex, 4> {
        let normal = Distribution::Normal(0.0, 1.5);
        Tensor::random([2, tokens, 3, head_dim], normal, &Default::default()).swap_dims(1, 2)
    }

    /// How many ways this processor has for so many queries.
    fn ways_there(queries: usize, head_dim: usize) -> usize {
        let unit = queries > 1 && head_dim.is_multiple_of(32) && crate::testing::require("amx");
        let pairs = queries > 1 && head_dim <= 256 && crate::testing::require("avx512bf16");
        usize::from(unit) + usize::from(pairs)
    }

    /// Of numbers with few bits, so that only the softmax is rounded.
    #[test]
    fn rounding_is_all_that_the_fast_ways_may_change() {
        for (queries, keys, head_dim) in [
            (2, 2, 32),
            (33, 33, 64),
            (70, 100, 128),
            (577, 577, 64),
            // A block of keys that ends amid a pair, and several; half of a pair in a head.
            (49, 511, 16),
            (60, 1_031, 40),
            (5, 5, 7),
            // One number less than a whole vector of pairs.
            (5, 5, 31),
            (40, 40, 63),
        ] {
            for mask in [Mask::None, Mask::Causal] {
                let [q, k, v] = [queries, keys, keys].map(|tokens| (random(tokens, head_dim) * 8.0).round() / 8.0);
                let expected = reference_attend(q.clone(), k.clone(), v.clone(), mask);
                let ways: Vec<_> = every_way([&q, &k, &v], mask).collect();
                assert_eq!(ways.len(), ways_there(queries, head_dim), "{queries} queries of {head_dim}, {mask:?}");
                for found in ways {
                    let difference = crate::testing::difference(found, expected.clone());
                    assert!(difference < 0.03, "{queries} queries, {keys} keys of {head_dim}, {mask:?}: {difference}");
                }
            }
        }
    }

    #[test]
    fn what_overflows_is_not_hidden() {
        let large = random(3, 32) * f32::MAX;
        assert_eq!(every_way([&large, &large, &random(3, 32)], Mask::Causal).count(), ways_there(3, 32));
        for attended in every_way([&large, &large, &random(3, 32)], Mask::Causal) {
            assert!(attended.into_data().iter::<f32>().all(f32::is_nan));
        }
    }
}
