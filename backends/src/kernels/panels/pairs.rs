//! Products of numbers rounded to bf16, a pair of inputs at a time. The instruction takes numbers below 2⁻¹²⁶ for 0.

use half::bf16;

use super::{
    element::{PackedElement, Pair},
    micro_kernel::Avx512Bf16,
    multiply,
};
use crate::kernels::{
    elementwise::add_to_rows,
    instructions::{Instructions, has},
    rows::Rows,
};

/// The number of rows from which on tiles are faster than dot products.
const MANY_ROWS: usize = 17;

/// The product `x · Wᵀ`, `[rows, outputs]`, plus `bias` in every row, of `x` `[rows, inner]` rounded to bf16 and `weight` `[outputs, inner]`;
/// `None` where the processor lacks the instructions, or for sizes that this is not made for.
pub(in crate::kernels) fn product(
    x: &[f32],
    weight: &dyn Rows<bf16>,
    [rows, inner, outputs]: [usize; 3],
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    if !has(Instructions::Avx512Bf16) || rows < MANY_ROWS || inner == 0 || !inner.is_multiple_of(Pair::NUMBERS) {
        return None;
    }
    // SAFETY: the processor has the vectors, and AVX2.
    let mut out = unsafe { multiply::<Avx512Bf16, bf16>(x, weight, [rows, inner / Pair::NUMBERS, outputs]) };
    add_to_rows(&mut out, bias);
    Some(out)
}
