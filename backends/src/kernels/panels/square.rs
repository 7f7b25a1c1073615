//! Transposition, a square at a time.

use std::{arch::x86_64::*, array};

/// The count of numbers on a side of a square.
pub(super) const SIDE: usize = 8;

/// Loads the rows of a square, `stride` apart.
///
/// # Safety
/// The processor must have AVX2, and the rows must be there.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load(from: *const f32, stride: usize) -> [__m256; SIDE] {
    // SAFETY: by the caller.
    array::from_fn(|i| unsafe { _mm256_loadu_ps(from.add(i * stride)) })
}

/// Transposes a square: column `i` is written to `to + i · stride`. Pairs, then pairs of pairs, then halves change places.
///
/// # Safety
/// The processor must have AVX2, and `to` must have room for the square.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn transpose(rows: [__m256; SIDE], to: *mut f32, stride: usize) {
    let pairs: [__m256; SIDE] = array::from_fn(|i| match i % 2 {
        0 => _mm256_unpacklo_ps(rows[i], rows[i + 1]),
        _ => _mm256_unpackhi_ps(rows[i - 1], rows[i]),
    });
    let fours: [__m256; SIDE] = array::from_fn(|i| {
        let (first, second) = (i / 4 * 4 + i % 4 / 2, i / 4 * 4 + i % 4 / 2 + 2);
        match i % 2 {
            0 => _mm256_shuffle_ps::<0b01_00_01_00>(pairs[first], pairs[second]),
            _ => _mm256_shuffle_ps::<0b11_10_11_10>(pairs[first], pairs[second]),
        }
    });
    for i in 0..SIDE {
        let column = match i / 4 {
            0 => _mm256_permute2f128_ps::<0x20>(fours[i % 4], fours[i % 4 + 4]),
            _ => _mm256_permute2f128_ps::<0x31>(fours[i % 4], fours[i % 4 + 4]),
        };
        // SAFETY: by the caller.
        unsafe { _mm256_storeu_ps(to.add(i * stride), column) };
    }
}
