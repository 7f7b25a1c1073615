//! The attention that tokens receive from all others: column sums of attention, a block of queries at a time.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};

use super::{
    attention::{Block, attention},
    columns::Columns,
    heads::{Head, Heads},
    turns::in_turn,
    vectors::on_vectors,
};
use crate::Mask;

/// The body of [`crate::VlmBackend::attention_received`]; `None` if the tensors are laid out otherwise.
pub(crate) fn received([q, k]: [&FlexTensor; 2], bf16: bool) -> Option<FlexTensor> {
    let (q, k) = (Heads::of(q)?, Heads::of(k)?);
    (q.shape == k.shape).then_some(())?;
    let [batch, heads, tokens, _] = q.shape;
    let mut sums = vec![0.0f32; batch * heads * tokens];
    if !bf16 || rounded([&q, &k], &mut sums).is_none() {
        let columns = Columns(sums.as_mut_ptr());
        in_turn(q.count(), |scores, i| {
            // SAFETY: a head's sums are one thread's.
            let sums = unsafe { std::slice::from_raw_parts_mut(columns.at(i * tokens), tokens) };
            one_head(scores, [q.head(i), k.head(i)], sums);
        });
    }
    let scale = ((heads * tokens) as f32).recip();
    let mut means = vec![0.0f32; batch * tokens];
    for (sums, means) in sums.chunks_exact(heads * tokens).zip(means.chunks_exact_mut(tokens)) {
        for sums in sums.chunks_exact(tokens) {
            means.iter_mut().zip(sums).for_each(|(mean, sum)| *mean += scale * sum);
        }
    }
    Some(FlexTensor::new(Bytes::from_elems(means), Layout::contiguous(Shape::from([batch, tokens])), DType::F32))
}

/// The sums on the processor's own unit for bf16, where there is one.
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), expect(unused_variables))]
fn rounded(heads: [&Heads; 2], sums: &mut [f32]) -> Option<()> {
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    return super::amx::received::received(heads, sums);
    #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
    None
}

fn one_head(scores: &mut Vec<f32>, [q, k]: [Head; 2], sums: &mut [f32]) {
    for block in Block::of(q.rows, k.rows, Mask::None) {
        attention(scores, q.part(block.from, block.to), k, &block, Mask::None);
        on_vectors!({
            for row in scores.chunks_exact(sums.len()) {
                sums.iter_mut().zip(row).for_each(|(sum, share)| *sum += share);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;
    use crate::{Flex, kernels::heads::random, ops::reference_attention_received, testing::difference};

    #[test]
    fn both_ways_are_the_reference() {
        for (heads, tokens, width) in [(2, 5, 16), (3, 70, 80), (2, 300, 64), (1, 33, 33)] {
            let [q, k] = [0, 1].map(|_| random([2, tokens, heads, width]).swap_dims(1, 2));
            let expected = reference_attention_received(q.clone(), k.clone());
            let inputs = [&q, &k].map(|x| x.clone().into_primitive().tensor());
            for (bf16, allowed) in [(false, 1e-4), (true, 0.05)] {
                let found = received(inputs.each_ref(), bf16).expect("heads are read in place");
                let found: Tensor<Flex, 2> = Tensor::from_primitive(TensorPrimitive::Float(found));
                // In parts of the mean, which is 1 for `tokens` tokens together.
                let worst = difference(found, expected.clone()) * tokens as f32;
                assert!(worst < allowed, "{heads} heads, {tokens} of {width}, {bf16}: {worst}");
            }
        }
    }
}
