//! The CPU, fast: Burn's Flex backend with a product of its own for 16-bit weights.

use burn::tensor::{DType, Tensor, module::attention, ops::FloatTensor};
use burn_flex::FlexTensor;

use crate::{
    VlmBackend,
    kernels::linear16,
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

    /// Flex's own attention tiles long sequences instead of writing out the score matrix.
    fn attend(q: Tensor<Self, 4>, k: Tensor<Self, 4>, v: Tensor<Self, 4>, causal: bool) -> Tensor<Self, 4> {
        attention(q, k, v, None, None, attention_options(causal))
    }
}
