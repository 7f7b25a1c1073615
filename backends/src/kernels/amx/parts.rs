//! Numbers as sums of bf16 numbers, which the unit multiplies: an f32 number is the sum of three, of 8 bits each, an
//! f16 number of two.

use std::arch::x86_64::*;

use super::line::{Line, WIDTH};
use crate::kernels::widen::Weight;

/// The number of parts of an f32 number.
pub(super) const PARTS: usize = 3;

/// Loads 32 numbers as f32. [`Weight::PARTS`] tells their type.
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) fn load<T: Weight>(from: &[T; WIDTH]) -> [__m512; 2] {
    let from = from.as_ptr();
    // SAFETY: 32 numbers of 32 bits, or of 16.
    unsafe {
        if T::PARTS == 3 {
            return [_mm512_loadu_ps(from.cast()), _mm512_loadu_ps(from.add(16).cast())];
        }
        let halves = [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(16).cast())];
        if T::PARTS == 2 {
            return [_mm512_cvtph_ps(halves[0]), _mm512_cvtph_ps(halves[1])];
        }
        [widen(halves[0]), widen(halves[1])]
    }
}

/// Widens 16 bf16 numbers to f32.
#[target_feature(enable = "avx512f")]
#[inline]
fn widen(half: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
}

/// Splits 32 numbers into parts: the first part of each is the number rounded to bf16, and every further part is the
/// rest after the parts before it, rounded. Infinite numbers and NaN stay in the first part.
#[target_feature(enable = "avx512f,avx512bf16")]
#[inline]
pub(super) fn take_apart<const PARTS: usize>(mut rest: [__m512; 2]) -> [Line; PARTS] {
    let mut parts = [Line::ZERO; PARTS];
    for (i, part) in parts.iter_mut().enumerate() {
        let rounded = _mm512_cvtne2ps_pbh(rest[1], rest[0]);
        // SAFETY: 512 bits of anything.
        let bits: __m512i = unsafe { std::mem::transmute(rounded) };
        // SAFETY: a line.
        unsafe { _mm512_store_si512(part.0.as_mut_ptr().cast(), bits) };
        if i + 1 < PARTS {
            let halves = [_mm512_castsi512_si256(bits), _mm512_extracti64x4_epi64::<1>(bits)];
            for (rest, half) in rest.iter_mut().zip(halves) {
                let taken = widen(half);
                // A number that rounds to infinity would leave an infinite rest, which is no part.
                let finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_abs_ps(taken), _mm512_set1_ps(f32::INFINITY));
                *rest = _mm512_maskz_sub_ps(finite, *rest, taken);
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::array;

    use half::f16;

    use super::*;

    /// The sum of the parts of each number.
    fn together<const PARTS: usize>(numbers: [f32; WIDTH]) -> [f32; WIDTH] {
        // SAFETY: the caller looked.
        let parts = unsafe { take_apart::<PARTS>(load(&numbers)) };
        // Summed from the smallest part on, no sum is rounded.
        array::from_fn(|i| parts.iter().rev().map(|part| part.0[i].to_f32()).sum())
    }

    #[test]
    fn parts_add_up() {
        if !crate::testing::require("avx512bf16") {
            return;
        }
        for seed in 0..500u32 {
            let bits = |i: usize| (seed * 32 + i as u32).wrapping_mul(2_654_435_761);
            // The numbers are between 2^-60 and 2^67, of both signs.
            let number = |i: usize| f32::from_bits(bits(i) & 0xbfff_ffff | 0x2000_0000);
            let numbers: [f32; WIDTH] = array::from_fn(number);
            assert_eq!(together::<3>(numbers), numbers);
            let halves: [f32; WIDTH] = array::from_fn(|i| f16::from_bits(bits(i) as u16 & 0xbfff).to_f32());
            assert_eq!(together::<2>(halves), halves);
        }
        let odd = together::<3>(array::from_fn(|i| [f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 0.0][i % 4]));
        assert_eq!(odd[..4], [f32::INFINITY, f32::NEG_INFINITY, f32::INFINITY, 0.0]);
        assert!(together::<3>([f32::NAN; WIDTH]).iter().all(|x| x.is_nan()));
    }
}
