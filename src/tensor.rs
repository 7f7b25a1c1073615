//! Tensors back on the host.

use burn::tensor::{DType, Tensor, backend::Backend};

/// The numbers of a tensor, in row-major order.
pub(crate) fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().convert::<f32>().into_vec().expect("f32 reads back as f32")
}
