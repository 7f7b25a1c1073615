//! Keys and values of more positions, written into the buffer of those before.

use burn::tensor::DType;
use burn_flex::FlexTensor;

use super::heads::Heads;

/// Writes `new` `[1, heads, n, head_dim]` into `buffer` `[1, heads, capacity, head_dim]` at position `at`, in place;
/// gives the buffer back untouched if it is shared or laid out otherwise.
pub(crate) fn write_positions(mut buffer: FlexTensor, at: usize, new: &FlexTensor) -> Result<FlexTensor, FlexTensor> {
    let [1, heads, capacity, head_dim] = buffer.layout().shape()[..] else { return Err(buffer) };
    let whole = buffer.is_contiguous() && buffer.layout().start_offset() == 0;
    if !whole || !buffer.is_unique() || buffer.dtype() != DType::F32 {
        return Err(buffer);
    }
    let Some(new) = Heads::of(new) else { return Err(buffer) };
    let count = new.shape[2];
    if new.shape != [1, heads, count, head_dim] || at + count > capacity {
        return Err(buffer);
    }
    let data: &mut [f32] = buffer.storage_mut();
    for head in 0..heads {
        for token in 0..count {
            let to = (head * capacity + at + token) * head_dim;
            data[to..to + head_dim].copy_from_slice(new.head(head).row(token));
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
