//! Attention of many queries, and its gradient, a block of queries at a time: only a strip of the score matrix exists
//! at a time, and stays in the cache. On AVX2 and AVX-512, attention itself uses `panels::attend`, but for
//! [`Mask::Turns`].

use std::ops::Range;

use burn_flex::FlexTensor;

use super::{
    heads::{Head, Heads, Matrix, MatrixMut, NewHead, NewHeads, product, tensor},
    select::{ATTEND, ATTEND_BF16, there},
    turns::in_turn,
    vectors::{exp, on_vectors, sum},
};
use crate::{Mask, mask::position};

/// The number of queries in a block.
const BLOCK: usize = 64;

/// The body of [`crate::VlmBackend::attend`]; `None` if the tensors are laid out otherwise.
pub(crate) fn attend([q, k, v]: [&FlexTensor; 3], mask: Mask) -> Option<FlexTensor> {
    let (q, k, v) = (Heads::of(q)?, Heads::of(k)?, Heads::of(v)?);
    let mut buffer = vec![0.0; q.shape.iter().product()];
    let mut out = NewHeads::of(&mut buffer, q.shape);
    if there(ATTEND).find_map(|kernel| (kernel.run)([&q, &k, &v], mask, &mut out)).is_none() {
        in_turn(q.count(), |scores, i| {
            // SAFETY: every number is taken once.
            let out = unsafe { out.head(i) };
            forward(scores, [q.head(i), k.shared_by(&q, i), v.shared_by(&q, i)], mask, out);
        });
    }
    Some(tensor(buffer, q.shape))
}

/// The body of [`crate::VlmBackend::attend_bf16`]; `None` if the processor or the tensors are not made for it.
pub(crate) fn attend_bf16([q, k, v]: [&FlexTensor; 3], mask: Mask) -> Option<FlexTensor> {
    let heads = [Heads::of(q)?, Heads::of(k)?, Heads::of(v)?];
    let mut buffer = vec![0.0; heads[0].shape.iter().product()];
    let mut out = NewHeads::of(&mut buffer, heads[0].shape);
    there(ATTEND_BF16).find_map(|kernel| (kernel.run)(heads.each_ref(), mask, &mut out))?;
    Some(tensor(buffer, heads[0].shape))
}

/// The body of [`crate::train::Gradients::attend_backward`]; `None` if the tensors are laid out otherwise.
#[cfg(any(feature = "train", test))]
pub(crate) fn attend_backward([q, k, v]: [&FlexTensor; 3], grad: &FlexTensor, mask: Mask) -> Option<[FlexTensor; 3]> {
    let (q, k, v, grad) = (Heads::of(q)?, Heads::of(k)?, Heads::of(v)?, Heads::of(grad)?);
    // Heads that share keys would add to the same gradient.
    (q.shape[1] == k.shape[1]).then_some(())?;
    let shapes = [q.shape, k.shape, v.shape];
    let mut buffers = shapes.map(|shape| vec![0.0; shape.iter().product()]);
    let [dq, dk, dv] = &mut buffers;
    let out = [(dq, q.shape), (dk, k.shape), (dv, v.shape)].map(|(buffer, shape)| NewHeads::of(buffer, shape));
    in_turn(q.count(), |scratch, i| {
        // SAFETY: every number is taken once.
        let out = out.each_ref().map(|out| unsafe { out.head(i) });
        backward(scratch, [q.head(i), k.head(i), v.head(i)], grad.head(i), mask, out);
    });
    let [dq, dk, dv] = buffers;
    Some([tensor(dq, shapes[0]), tensor(dk, shapes[1]), tensor(dv, shapes[2])])
}

/// A block of queries, and the keys that any of them sees.
pub(super) struct Block {
    pub(super) from: usize,
    pub(super) to: usize,
    /// The position of the first query.
    first: usize,
    /// The keys as two ranges of neighbours; the second may be empty.
    runs: [Range<usize>; 2],
}

impl Block {
    pub(super) fn of(queries: usize, keys: usize, mask: Mask) -> impl Iterator<Item = Self> {
        let position = move |query| position(query, queries, keys);
        (0..queries).step_by(BLOCK).map(move |from| {
            let to = (from + BLOCK).min(queries);
            let (first, end) = (position(from), position(to));
            let [before, start, _] = mask.seen(first, keys);
            let runs = match mask {
                Mask::None => [0..keys, 0..0],
                // The own keys of other queries lie between.
                Mask::Turns { .. } if before < start => [0..before, start..end],
                _ => [0..end, 0..0],
            };
            Self { from, to, first, runs }
        })
    }

    /// The number of keys.
    fn keys(&self) -> usize {
        self.runs.iter().map(Range::len).sum()
    }

    /// The ranges of keys, each with its columns of the scores.
    fn columns(&self) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let [before, own] = self.runs.clone();
        let columns = before.len()..before.len() + own.len();
        [(before.clone(), 0..before.len()), (own, columns)].into_iter().filter(|(run, _)| !run.is_empty())
    }
}

fn forward(scores: &mut Vec<f32>, [q, k, v]: [Head; 3], mask: Mask, mut out: NewHead) {
    for block in Block::of(q.rows, k.rows, mask) {
        let Block { from, to, .. } = block;
        attention(scores, q.part(from, to), k, &block, mask);
        let scores = Matrix::scores(scores, block.keys());
        for (run, columns) in block.columns() {
            let (add, v) = (columns.start > 0, v.part(run.start, run.end));
            product(out.part(from, to).into(), add, scores.columns(&columns), v.into(), 1.0);
        }
    }
}

/// Computes the gradients of one head: with P the attention and dP = grad·vᵀ, the scores' gradient is P ∘ (dP −
/// rowsum(P ∘ dP)).
#[cfg(any(feature = "train", test))]
fn backward(
    (scores, gradient): &mut (Vec<f32>, Vec<f32>),
    [q, k, v]: [Head; 3],
    grad: Head,
    mask: Mask,
    [mut dq, mut dk, mut dv]: [NewHead; 3],
) {
    let scale = (q.columns as f32).sqrt().recip();
    for block in Block::of(q.rows, k.rows, mask) {
        let (from, to, keys) = (block.from, block.to, block.keys());
        let (q, grad) = (q.part(from, to), grad.part(from, to));
        attention(scores, q, k, &block, mask);
        gradient.resize(scores.len(), 0.0);
        for (run, columns) in block.columns() {
            let v = Matrix::from(v.part(run.start, run.end)).transposed();
            product(MatrixMut::scores(gradient, keys).columns(&columns), false, grad.into(), v, 1.0);
        }
        on_vectors!({
            for (row, gradient) in scores.chunks(keys).zip(gradient.chunks_mut(keys)) {
                let mean = sum(row, gradient, |p, g| p * g);
                gradient.iter_mut().zip(row).for_each(|(g, p)| *g = scale * p * (*g - mean));
            }
        });
        for (run, columns) in block.columns() {
            let add = columns.start > 0;
            let scores = Matrix::scores(scores, keys).columns(&columns);
            let gradient = Matrix::scores(gradient, keys).columns(&columns);
            product(dv.part(run.start, run.end).into(), true, scores.transposed(), grad.into(), 1.0);
            product(dk.part(run.start, run.end).into(), true, gradient.transposed(), q.into(), 1.0);
            product(dq.part(from, to).into(), add, gradient, k.part(run.start, run.end).into(), 1.0);
        }
    }
}

/// Computes `softmax(q·kᵀ/√head_dim)` over the block's keys, row by row.
pub(super) fn attention(scores: &mut Vec<f32>, q: Head, k: Head, block: &Block, mask: Mask) {
    let keys = block.keys();
    scores.resize(q.rows * keys, 0.0);
    let scale = (q.columns as f32).sqrt().recip();
    for (run, columns) in block.columns() {
        let k = Matrix::from(k.part(run.start, run.end)).transposed();
        product(MatrixMut::scores(scores, keys).columns(&columns), false, q.into(), k, scale);
    }
    let [before, own] = &block.runs;
    // Keys between the two ranges have no column.
    let gap = if own.is_empty() { 0 } else { own.start - before.end };
    on_vectors!({
        for (i, row) in scores.chunks_mut(keys).enumerate() {
            let [shared, from, to] = mask.seen(block.first + i, keys);
            softmax_seen(row, [shared, from - gap, to - gap]);
        }
    });
}

/// The softmax of a row over the keys that it sees, see [`Mask::seen`]; all others become 0.
#[inline(always)]
fn softmax_seen(row: &mut [f32], [shared, from, to]: [usize; 3]) {
    row[to..].fill(0.0);
    // The seen keys are moved side by side, so that the softmax is over one range.
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

    /// The results of all ways that are made for these inputs.
    fn every_way(inputs: [&Tensor<Flex, 4>; 3], mask: Mask) -> impl Iterator<Item = Tensor<Flex, 4>> {
        let inputs: [FlexTensor; 3] = inputs.map(|x| x.clone().into_primitive().tensor());
        there(ATTEND_BF16).filter_map(move |kernel| {
            let [q, k, v] = inputs.each_ref().map(|x| Heads::of(x).unwrap());
            let mut buffer = vec![0.0; q.shape.iter().product()];
            (kernel.run)([&q, &k, &v], mask, &mut NewHeads::of(&mut buffer, q.shape))?;
            Some(Tensor::from_primitive(TensorPrimitive::Float(tensor(buffer, q.shape))))
        })
    }

    fn random(tokens: usize, head_dim: usize) -> Tensor<Flex, 4> {
        let normal = Distribution::Normal(0.0, 1.5);
        Tensor::random([2, tokens, 3, head_dim], normal, &Default::default()).swap_dims(1, 2)
    }

    /// The number of ways that this processor has for so many queries.
    fn ways_there(queries: usize, head_dim: usize) -> usize {
        let unit = queries > 1 && head_dim >= 32 && crate::testing::require("amx");
        let pairs = queries > 1 && head_dim <= 256 && crate::testing::require("avx512bf16");
        usize::from(unit) + usize::from(pairs)
    }

    /// The inputs have few bits, so that only the softmax is rounded.
    #[test]
    fn rounding_is_all_that_the_fast_ways_may_change() {
        for (queries, keys, head_dim) in [
            (2, 2, 32),
            (33, 33, 64),
            (70, 100, 128),
            (577, 577, 64),
            // These have a block of keys that ends amid a pair, several blocks, and half of a pair in a head.
            (49, 511, 16),
            (60, 1_031, 40),
            (90, 90, 80),
            (5, 5, 7),
            // These have one number less than a whole vector of pairs.
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
