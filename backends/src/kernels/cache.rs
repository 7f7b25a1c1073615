//! Writing keys and values of new positions into the cache's buffer.

use burn::tensor::DType;
use burn_flex::FlexTensor;
use half::bf16;

use super::heads::Heads;

/// Writes `new` `[1, heads, n, head_dim]` in f32 into `buffer` `[1, heads, capacity, head_dim]` in f32 or bf16 at
/// position `at`, in place; gives the buffer back untouched if it is shared or laid out otherwise.
pub(crate) fn write_positions(buffer: FlexTensor, at: usize, new: &FlexTensor) -> Result<FlexTensor, FlexTensor> {
    match buffer.dtype() {
        DType::F32 => write(buffer, at, new, |buffer| buffer.storage_mut::<f32>(), <[f32]>::copy_from_slice),
        DType::BF16 => write(
            buffer,
            at,
            new,
            |buffer| buffer.storage_mut::<bf16>(),
            |to, from| {
                to.iter_mut().zip(from).for_each(|(to, x)| *to = bf16::from_f32(*x));
            },
        ),
        _ => Err(buffer),
    }
}

fn write<T>(
    mut buffer: FlexTensor,
    at: usize,
    new: &FlexTensor,
    numbers: impl Fn(&mut FlexTensor) -> &mut [T],
    round: impl Fn(&mut [T], &[f32]),
) -> Result<FlexTensor, FlexTensor> {
    let [1, heads, capacity, head_dim] = buffer.layout().shape()[..] else { return Err(buffer) };
    let whole = buffer.is_contiguous() && buffer.layout().start_offset() == 0;
    if !whole || !buffer.is_unique() {
        return Err(buffer);
    }
    let Some(new) = Heads::of(new) else { return Err(buffer) };
    let count = new.shape[2];
    if new.shape != [1, heads, count, head_dim] || at + count > capacity {
        return Err(buffer);
    }
    let data = numbers(&mut buffer);
    for head in 0..heads {
        for token in 0..count {
            let to = (head * capacity + at + token) * head_dim;
            round(&mut data[to..to + head_dim], new.head(head).row(token));
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Tensor, TensorPrimitive};

    use super::*;
    use crate::Flex;
    use crate::kernels::heads::random;

    #[test]
    fn positions_are_written_in_place() {
        for dtype in [DType::F32, DType::BF16] {
            let (buffer, new) = (random([1, 3, 9, 5]).cast(dtype), random([1, 3, 4, 5]));
            let expected = buffer.clone().slice_assign([0..1, 0..3, 2..6, 0..5], new.clone().cast(dtype));
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
}
