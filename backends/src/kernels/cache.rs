//! Keys and values of earlier positions: writing new ones into the cache's buffer, and reading them as f32.

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use half::bf16;
use rayon::prelude::*;

use super::heads::{Heads, Number};

/// Writes `new` `[1, heads, n, head_dim]` in f32, or in the buffer's type, into `buffer` `[1, heads, capacity, head_dim]` in f32 or bf16 at
/// position `at`, in place; gives the buffer back untouched if it is shared or laid out otherwise.
pub(crate) fn write_positions(buffer: FlexTensor, at: usize, new: &FlexTensor) -> Result<FlexTensor, FlexTensor> {
    match (buffer.dtype(), new.dtype()) {
        (DType::F32, DType::F32) => {
            write(buffer, at, new, |buffer| buffer.storage_mut::<f32>(), <[f32]>::copy_from_slice)
        }
        (DType::BF16, DType::BF16) => {
            write(buffer, at, new, |buffer| buffer.storage_mut::<bf16>(), <[bf16]>::copy_from_slice)
        }
        (DType::BF16, DType::F32) => write(buffer, at, new, |buffer| buffer.storage_mut::<bf16>(), round),
        _ => Err(buffer),
    }
}

fn round(to: &mut [bf16], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = bf16::from_f32(*x));
}

fn write<T: Send, N: Number>(
    mut buffer: FlexTensor,
    at: usize,
    new: &FlexTensor,
    numbers: impl Fn(&mut FlexTensor) -> &mut [T],
    copy: impl Fn(&mut [T], &[N]) + Sync,
) -> Result<FlexTensor, FlexTensor> {
    let [1, heads, capacity, head_dim] = buffer.layout().shape()[..] else { return Err(buffer) };
    let whole = buffer.is_contiguous() && buffer.layout().start_offset() == 0;
    if !whole || !buffer.is_unique() {
        return Err(buffer);
    }
    let Some(new) = Heads::<N>::of(new) else { return Err(buffer) };
    let count = new.shape[2];
    if new.shape != [1, heads, count, head_dim] || at + count > capacity {
        return Err(buffer);
    }
    let one = |(head, to): (usize, &mut [T])| {
        let from = new.head(head);
        for (token, to) in to[at * head_dim..][..count * head_dim].chunks_exact_mut(head_dim).enumerate() {
            copy(to, from.row(token));
        }
    };
    if count * head_dim == 0 {
        return Ok(buffer);
    }
    let data = &mut numbers(&mut buffer)[..heads * capacity * head_dim];
    // A token of an answer is written sooner than threads are woken.
    if count > 1 {
        data.par_chunks_exact_mut(capacity * head_dim).enumerate().for_each(one);
    } else {
        data.chunks_exact_mut(capacity * head_dim).enumerate().for_each(one);
    }
    Ok(buffer)
}

/// Keys or values `[batch, heads, tokens, head_dim]` in bf16 as f32, side by side; `None` if they are of another type or laid out otherwise.
pub(crate) fn widened(x: &FlexTensor) -> Option<FlexTensor> {
    let x = Heads::<bf16>::of(x)?;
    let [_, _, tokens, head_dim] = x.shape;
    let mut found = vec![0.0f32; x.shape.iter().product()];
    found.par_chunks_exact_mut((tokens * head_dim).max(1)).enumerate().for_each(|(head, found)| {
        let from = x.head(head);
        for (token, found) in found.chunks_exact_mut(head_dim).enumerate() {
            found
                .iter_mut()
                .zip(from.row(token))
                .for_each(|(to, x)| *to = f32::from_bits(u32::from(x.to_bits()) << 16));
        }
    });
    Some(FlexTensor::new(Bytes::from_elems(found), Layout::contiguous(Shape::from(x.shape)), DType::F32))
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;
    use crate::Flex;
    use crate::kernels::heads::random;

    #[test]
    fn positions_are_written_in_place() {
        use DType::{BF16, F32};
        for (dtype, of_new) in [(F32, F32), (BF16, F32), (BF16, BF16)] {
            let (buffer, new) = (random([1, 3, 9, 5]).cast(dtype), random([1, 3, 4, 5]).cast(of_new));
            // Burn's own cast rounds a few numbers near the middle of two the wrong way.
            let rounded = Tensor::<Flex, 4>::from_data(new.to_data().convert_dtype(dtype), (&new.device(), dtype));
            let expected = buffer.clone().slice_assign([0..1, 0..3, 2..6, 0..5], rounded);
            let shared = buffer.clone();
            let primitive = buffer.into_primitive().tensor();
            let new = new.into_primitive().tensor();
            let primitive = write_positions(primitive, 2, &new).expect_err("a shared buffer is left alone");
            drop(shared);
            let address = primitive.bytes().as_ptr();
            let written = write_positions(primitive, 2, &new).expect("it is owned once now");
            assert_eq!(written.bytes().as_ptr(), address);
            let written = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(written));
            written.into_data().assert_eq(&expected.into_data(), true);
        }
    }

    #[test]
    fn widened_is_a_cast() {
        let x = random([2, 3, 9, 5]).cast(DType::BF16).narrow(2, 1, 7);
        let found = widened(&x.clone().into_primitive().tensor()).expect("rows are contiguous");
        let found = Tensor::<Flex, 4>::from_primitive(TensorPrimitive::Float(found));
        found.into_data().assert_eq(&x.cast(DType::F32).into_data(), true);
    }
}
