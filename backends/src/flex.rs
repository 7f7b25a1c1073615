//! The CPU, fast: Burn's Flex backend with a product of its own for 16-bit weights.

use burn::tensor::{DType, Int, Tensor, TensorPrimitive, module::attention, ops::FloatTensor};
use burn_flex::FlexTensor;

use crate::{
    VlmBackend, dpp,
    kernels::{attend, linear16},
    ops::{attention_options, reference_product},
};

/// Burn's Flex backend.
pub type Flex = burn_flex::Flex;

/// The CPU.
pub(crate) fn device() -> burn_flex::FlexDevice {
    burn_flex::FlexDevice
}

impl VlmBackend for Flex {
    /// 16-bit weights are widened block by block inside the product: the reference body would write an f32 copy
    /// of the whole matrix for every token.
    fn apply_weight(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        let (x_dtype, weight_dtype): (DType, DType) = (x.dtype(), weight.dtype());
        let contiguous = |tensor: &FlexTensor| tensor.is_contiguous() && tensor.layout().start_offset() == 0;
        if x_dtype != DType::F32 || !matches!(weight_dtype, DType::F16 | DType::BF16) || !contiguous(&weight) {
            return reference_product::<Self>(x, weight);
        }
        linear16::product(&x.to_contiguous(), &weight)
    }

    /// One query reads keys and values in place; longer sequences take Flex's own attention, which tiles them instead
    /// of writing out the score matrix.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, causal: bool) -> Tensor<Self, 4> {
        if q.dims()[2] == 1 {
            let [q, k, v] = [&q, &k, &v].map(|x| x.clone().into_primitive().tensor());
            if let Some(attended) = attend::one_query(&q, &k, &v) {
                return Tensor::from_primitive(TensorPrimitive::Float(attended));
            }
        }
        attention(q, k, v, None, None, attention_options(causal))
    }

    /// Flex's `slice_assign` copies the whole buffer first.
    fn write_positions(buffer: Tensor<Self, 4>, at: usize, new: Tensor<Self, 4>) -> Tensor<Self, 4> {
        let [_, heads, count, head_dim] = new.dims();
        let (buffer, new) = (buffer.into_primitive().tensor(), new.into_primitive().tensor());
        match attend::write_positions(buffer, at, &new) {
            Ok(written) => Tensor::from_primitive(TensorPrimitive::Float(written)),
            Err(buffer) => {
                let [buffer, new] = [buffer, new].map(|x| Tensor::<Self, 4>::from_primitive(TensorPrimitive::Float(x)));
                buffer.slice_assign([0..1, 0..heads, at..at + count, 0..head_dim], new)
            }
        }
    }

    /// The device is the host, which has f64, and a loop over slices beats a dozen tensor operations a step.
    fn greedy_dpp(vectors: Tensor<Self, 3>, budget: usize) -> Tensor<Self, 2, Int> {
        dpp::on_host(vectors, budget)
    }
}
