//! Transposition of squares of 32-bit values in registers.

use std::arch::x86_64::*;

/// The number of rows and columns of a square.
pub(super) const TILE: usize = 16;

/// A square of 32-bit values: f32 numbers, or pairs of bf16 numbers.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Square(pub(super) [[u32; TILE]; TILE]);

impl Square {
    pub(super) const ZERO: Self = Self([[0; TILE]; TILE]);
}

/// Writes the columns of `square` as rows, `stride` values apart.
///
/// # Safety
/// 16 rows of 16 values must be there at `out`.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose(square: &Square, out: *mut u32, stride: usize) {
    let mut rows = [_mm512_setzero_ps(); TILE];
    for (row, values) in rows.iter_mut().zip(&square.0) {
        // SAFETY: a row of 16 values.
        *row = unsafe { _mm512_load_ps(values.as_ptr().cast()) };
    }
    // Pairs of rows are joined, then fours: within each quarter of a register, values of one column lie side by side.
    let mut pairs = rows;
    for i in 0..TILE / 2 {
        pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
        pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
    }
    let mut fours = rows;
    for i in 0..TILE / 4 {
        for half in 0..2 {
            let (a, b) = (_mm512_castps_pd(pairs[4 * i + half]), _mm512_castps_pd(pairs[4 * i + 2 + half]));
            fours[4 * i + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            fours[4 * i + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    // Quarters of four registers are joined: columns i, i + 4, i + 8 and i + 12.
    for i in 0..TILE / 4 {
        let even = _mm512_shuffle_f32x4::<0x88>(fours[i], fours[i + 4]);
        let odd = _mm512_shuffle_f32x4::<0xdd>(fours[i], fours[i + 4]);
        let even_below = _mm512_shuffle_f32x4::<0x88>(fours[i + 8], fours[i + 12]);
        let odd_below = _mm512_shuffle_f32x4::<0xdd>(fours[i + 8], fours[i + 12]);
        for (column, values) in [
            (i, _mm512_shuffle_f32x4::<0x88>(even, even_below)),
            (i + 4, _mm512_shuffle_f32x4::<0x88>(odd, odd_below)),
            (i + 8, _mm512_shuffle_f32x4::<0xdd>(even, even_below)),
            (i + 12, _mm512_shuffle_f32x4::<0xdd>(odd, odd_below)),
        ] {
            // SAFETY: by the caller.
            unsafe { _mm512_storeu_ps(out.add(column * stride).cast(), values) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        if !crate::testing::require("avx512") {
            return;
        }
        let mut square = Square::ZERO;
        for row in 0..TILE {
            square.0[row] = std::array::from_fn(|column| (row * TILE + column) as u32);
        }
        let mut out = [[0; 2 * TILE]; TILE];
        // SAFETY: 16 rows of 32 values.
        unsafe { transpose(&square, out.as_mut_ptr().cast(), 2 * TILE) };
        for (column, values) in out.iter().enumerate() {
            let expected: Vec<u32> = (0..TILE).map(|row| (row * TILE + column) as u32).collect();
            assert_eq!(values[..TILE], expected);
            assert_eq!(values[TILE..], [0; TILE]);
        }
    }
}
