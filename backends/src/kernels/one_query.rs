//! Attention of one query position, which decoding needs at every step.
//!
//! Keys and values are the filled part of a longer buffer. Burn's own attention copies such a view whole before it
//! starts. Here every head reads its rows in place, once for all queries that share them, in f32 or bf16.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::bf16;
use rayon::prelude::*;

use super::{
    heads::{Heads, Number},
    vectors::{exp, on_vectors, sum},
};

/// Computes `softmax(q·kᵀ/√head_dim)·v` for `q` `[batch, heads, 1, head_dim]` in f32, and keys and values `[batch,
/// kv_heads, tokens, head_dim]` in f32 or bf16; `None` if the tensors are laid out otherwise.
pub(crate) fn one_query(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor) -> Option<FlexTensor> {
    let q = Heads::of(q)?;
    match k.dtype() {
        DType::BF16 => attend::<bf16>(&q, [&Heads::of(k)?, &Heads::of(v)?]),
        _ => attend::<f32>(&q, [&Heads::of(k)?, &Heads::of(v)?]),
    }
}

/// A number of the cache.
trait Cached: Number {
    /// Returns the row `row` as f32; a row of another type is widened into `room`.
    fn widen<'r>(row: &'r [Self], room: &'r mut [f32]) -> &'r [f32];
}

impl Cached for f32 {
    #[inline(always)]
    fn widen<'r>(row: &'r [Self], _room: &'r mut [f32]) -> &'r [f32] {
        row
    }
}

impl Cached for bf16 {
    #[inline(always)]
    fn widen<'r>(row: &'r [Self], room: &'r mut [f32]) -> &'r [f32] {
        room.iter_mut().zip(row).for_each(|(to, x)| *to = f32::from_bits(u32::from(x.to_bits()) << 16));
        room
    }
}

fn attend<T: Cached>(q: &Heads, [k, v]: [&Heads<T>; 2]) -> Option<FlexTensor> {
    let [batch, heads, 1, head_dim] = q.shape else { return None };
    let [_, kv_heads, tokens, _] = k.shape;
    let group = heads / kv_heads;
    let scale = (head_dim as f32).sqrt().recip();
    let mut out = vec![0.0f32; batch * heads * head_dim];
    out.par_chunks_mut(group * head_dim).enumerate().for_each_init(Vec::new, |scratch, (head, out)| {
        scratch.resize(group * tokens + head_dim, 0.0);
        let (scores, room) = scratch.split_at_mut(group * tokens);
        let (keys, values) = (k.head(head), v.head(head));
        on_vectors!({
            for token in 0..tokens {
                let key = T::widen(keys.row(token), room);
                for i in 0..group {
                    let query = q.head(head * group + i);
                    scores[i * tokens + token] = scale * sum(query.row(0), key, |a, b| a * b);
                }
            }
            for scores in scores.chunks_exact_mut(tokens.max(1)) {
                let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                scores.iter_mut().for_each(|score| *score = exp(*score - best));
                let share = scores.iter().sum::<f32>().recip();
                scores.iter_mut().for_each(|score| *score *= share);
            }
            for token in 0..tokens {
                let value = T::widen(values.row(token), room);
                for (i, out) in out.chunks_exact_mut(head_dim).enumerate() {
                    let weight = scores[i * tokens + token];
                    out.iter_mut().zip(value).for_each(|(out, value)| *out += weight * value);
                }
            }
        });
    });
    let layout = Layout::contiguous(Shape::from([batch, heads, 1, head_dim]));
    Some(FlexTensor::new(Bytes::from_elems(out), layout, DType::F32))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;
    use crate::kernels::heads::random;
    use crate::{Flex, Mask, ops::reference_attend};

    #[test]
    fn one_query_equals_the_reference() {
        for (batch, heads, kv_heads, capacity, tokens, head_dim) in [
            (1, 4, 4, 50, 37, 40),
            (1, 1, 1, 1, 1, 3),
            (1, 32, 32, 200, 199, 128),
            (5, 3, 3, 30, 26, 16),
            (2, 6, 2, 30, 26, 16),
            (1, 8, 1, 40, 33, 20),
        ] {
            for dtype in [DType::F32, DType::BF16] {
                let q = random([batch, heads, 1, head_dim]);
                let [k, v] =
                    [0, 1].map(|_| random([batch, kv_heads, capacity, head_dim]).narrow(2, 0, tokens).cast(dtype));
                let slow = reference_attend(q.clone(), k.clone(), v.clone(), Mask::None);
                let [q, k, v] = [q, k, v].map(|x| x.into_primitive().tensor());
                let fast = one_query(&q, &k, &v).expect("this layout is the one that it is for");
                let fast = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(fast));
                let worst = crate::testing::difference(fast, slow);
                assert!(
                    worst < 1e-5,
                    "{heads} heads on {kv_heads}, {tokens} tokens, {dtype:?}: worst difference {worst}"
                );
            }
        }
    }
}
