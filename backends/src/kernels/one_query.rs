//! Attention of one query position, as decoding asks for at every step.
//!
//! Keys and values are the filled part of a longer buffer. Burn's own attention copies such a view whole before it
//! starts; here every head reads its rows where they are.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use super::{
    heads::Heads,
    vectors::{exp, on_vectors, sum},
};

/// `softmax(q·kᵀ/√head_dim)·v` for `q` `[batch, heads, 1, head_dim]`; `None` if the tensors are laid out otherwise.
pub(crate) fn one_query(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor) -> Option<FlexTensor> {
    let (q, k, v) = (Heads::of(q)?, Heads::of(k)?, Heads::of(v)?);
    let [batch, heads, 1, head_dim] = q.shape else { return None };
    let scale = (head_dim as f32).sqrt().recip();
    let mut out = vec![0.0f32; batch * heads * head_dim];
    out.par_chunks_mut(head_dim).enumerate().for_each_init(Vec::new, |scores, (head, out)| {
        let (q, k, v) = (q.head(head), k.head(head), v.head(head));
        let query = q.row(0);
        on_vectors!({
            scores.resize(k.rows, 0.0);
            for (token, score) in scores.iter_mut().enumerate() {
                *score = scale * sum(query, k.row(token), |a, b| a * b);
            }
            let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for (token, score) in scores.iter().enumerate() {
                let weight = exp(score - best);
                total += weight;
                out.iter_mut().zip(v.row(token)).for_each(|(out, value)| *out += weight * value);
            }
            out.iter_mut().for_each(|out| *out /= total);
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
        for (batch, heads, capacity, tokens, head_dim) in
            [(1, 4, 50, 37, 40), (1, 1, 1, 1, 3), (1, 32, 200, 199, 128), (5, 3, 30, 26, 16)]
        {
            let q = random([batch, heads, 1, head_dim]);
            let [k, v] = [0, 1].map(|_| random([batch, heads, capacity, head_dim]).narrow(2, 0, tokens));
            let slow = reference_attend(q.clone(), k.clone(), v.clone(), Mask::None);
            let [q, k, v] = [q, k, v].map(|x| x.into_primitive().tensor());
            let fast = one_query(&q, &k, &v).expect("this layout is the one that it is for");
            let fast = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(fast));
            let worst = crate::testing::difference(fast, slow);
            assert!(worst < 1e-5, "{batch}×{heads} heads, {tokens} tokens: worst difference {worst}");
        }
    }
}
