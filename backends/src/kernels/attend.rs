//! Attention of one query position, as decoding asks for at every step.
//!
//! Keys and values are the filled part of a longer buffer. Burn's own attention copies such a view whole before it
//! starts; here every head reads its rows where they are.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

/// An f32 tensor `[1, heads, tokens, head_dim]` whose rows are contiguous.
struct Rows<'a> {
    data: &'a [f32],
    offset: usize,
    head_stride: usize,
    token_stride: usize,
    head_dim: usize,
}

impl<'a> Rows<'a> {
    fn of(tensor: &'a FlexTensor) -> Option<Self> {
        let (layout, strides) = (tensor.layout(), tensor.layout().strides());
        let stride = |dim: usize| usize::try_from(strides[dim]).ok();
        (tensor.dtype() == DType::F32 && strides[3] == 1).then_some(())?;
        Some(Self {
            data: tensor.storage(),
            offset: layout.start_offset(),
            head_stride: stride(1)?,
            token_stride: stride(2)?,
            head_dim: layout.shape()[3],
        })
    }

    fn row(&self, head: usize, token: usize) -> &'a [f32] {
        let at = self.offset + head * self.head_stride + token * self.token_stride;
        &self.data[at..at + self.head_dim]
    }
}

/// `softmax(q·kᵀ/√head_dim)·v` for `q` `[1, heads, 1, head_dim]`; `None` if the tensors are laid out otherwise.
pub(crate) fn one_query(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor) -> Option<FlexTensor> {
    let [batch, heads, queries, head_dim] = q.layout().shape()[..] else { return None };
    let tokens = k.layout().shape()[2];
    if batch != 1 || queries != 1 || k.layout().shape()[1] != heads {
        return None;
    }
    let (q, k, v) = (Rows::of(q)?, Rows::of(k)?, Rows::of(v)?);
    let scale = (head_dim as f32).sqrt().recip();
    let mut out = vec![0.0f32; heads * head_dim];
    out.par_chunks_mut(head_dim).enumerate().for_each_init(Vec::new, |scores, (head, out)| {
        let query = q.row(head, 0);
        scores.clear();
        scores.extend((0..tokens).map(|token| scale * dot(query, k.row(head, token))));
        let best = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut total = 0.0;
        for (token, score) in scores.iter().enumerate() {
            let weight = (score - best).exp();
            total += weight;
            out.iter_mut().zip(v.row(head, token)).for_each(|(out, value)| *out += weight * value);
        }
        out.iter_mut().for_each(|out| *out /= total);
    });
    let layout = Layout::contiguous(Shape::from([1, heads, 1, head_dim]));
    Some(FlexTensor::new(Bytes::from_elems(out), layout, DType::F32))
}

/// A dot product in independent chains, which the compiler turns into vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    sums.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// Writes `new` `[1, heads, n, head_dim]` into `buffer` `[1, heads, capacity, head_dim]` at position `at`, in place;
/// gives the buffer back untouched if it is shared or laid out otherwise.
pub(crate) fn write_positions(mut buffer: FlexTensor, at: usize, new: &FlexTensor) -> Result<FlexTensor, FlexTensor> {
    let [batch, heads, capacity, head_dim] = buffer.layout().shape()[..] else { return Err(buffer) };
    let count = new.layout().shape()[2];
    let whole = buffer.is_contiguous() && buffer.layout().start_offset() == 0;
    if batch != 1 || !whole || !buffer.is_unique() || buffer.dtype() != DType::F32 || at + count > capacity {
        return Err(buffer);
    }
    let Some(new) = Rows::of(new) else { return Err(buffer) };
    let data: &mut [f32] = buffer.storage_mut();
    for head in 0..heads {
        for token in 0..count {
            let to = (head * capacity + at + token) * head_dim;
            data[to..to + head_dim].copy_from_slice(new.row(head, token));
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Distribution, Tensor, TensorPrimitive};

    use super::*;
    use crate::{Flex, Mask, ops::reference_attend};

    fn random(shape: [usize; 4]) -> Tensor<Flex, 4> {
        Tensor::random(shape, Distribution::Uniform(-2.0, 2.0), &Default::default())
    }

    #[test]
    fn one_query_equals_the_reference() {
        for (heads, capacity, tokens, head_dim) in [(4, 50, 37, 40), (1, 1, 1, 3), (32, 200, 199, 128)] {
            let q = random([1, heads, 1, head_dim]);
            let [k, v] = [0, 1].map(|_| random([1, heads, capacity, head_dim]).narrow(2, 0, tokens));
            let slow = reference_attend(q.clone(), k.clone(), v.clone(), Mask::None);
            let [q, k, v] = [q, k, v].map(|x| x.into_primitive().tensor());
            let fast = one_query(&q, &k, &v).expect("this layout is the one that it is for");
            let fast = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(fast));
            let worst = (fast - slow).abs().max().into_scalar();
            assert!(worst < 1e-5, "{heads} heads, {tokens} tokens: worst difference {worst}");
        }
    }

    #[test]
    fn positions_are_written_in_place() {
        let (buffer, new) = (random([1, 3, 9, 5]), random([1, 3, 4, 5]));
        let expected = buffer.clone().slice_assign([0..1, 0..3, 2..6, 0..5], new.clone());
        let shared = buffer.clone();
        let primitive = buffer.into_primitive().tensor();
        let new = new.into_primitive().tensor();
        let primitive = write_positions(primitive, 2, &new).expect_err("a shared buffer is left alone");
        drop(shared);
        let address = primitive.storage::<f32>().as_ptr();
        let written = write_positions(primitive, 2, &new).expect("it is owned once now");
        assert_eq!(written.storage::<f32>().as_ptr(), address);
        let written = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(written));
        written.into_data().assert_eq(&expected.into_data(), true);
    }
}
