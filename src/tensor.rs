//! Tensors back on the host.

use burn::tensor::{DType, Tensor, backend::Backend};

/// The numbers of a tensor, in row-major order.
pub(crate) fn host<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().convert::<f32>().into_vec().expect("f32 reads back as f32")
}

/// Whether all numbers of a tensor are finite. One number is read back.
pub(crate) fn is_finite<B: Backend, const D: usize>(tensor: &Tensor<B, D>) -> bool {
    // Zero times a number that is not finite is NaN, and the sum of zeros cannot overflow, in 16 bits either.
    let sum = host(tensor.clone().mul_scalar(0.0).sum());
    sum.iter().all(|sum| sum.is_finite())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use secateur_backends::Flex;

    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_found_wherever_they_are() {
        let device = Default::default();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            for found in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in [0, 7, 99] {
                    let mut numbers = vec![60_000.0f32; 100];
                    let tensor = |numbers: &[f32]| Tensor::<Flex, 1>::from_floats(numbers, &device).cast(dtype);
                    assert!(is_finite(&tensor(&numbers)));
                    numbers[at] = found;
                    assert!(!is_finite(&tensor(&numbers)), "{found} at {at} in {dtype:?}");
                }
            }
        }
    }
}
