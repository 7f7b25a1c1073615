//! Rounding to bf16 without branches.

/// The bits of `x` as bf16, to nearest even: [`half::bf16::from_f32`] without branches, which the compiler turns into vectors.
#[cfg(any(test, target_arch = "x86_64"))]
#[inline(always)]
pub(super) fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    // NaN stays NaN, whatever rounding made of it.
    let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
    (bits >> 16) as u16
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    #[test]
    fn rounds_to_nearest_even() {
        assert_eq!(nearest(f32::from_bits(0x3f81_8000)), 0x3f82);
        assert!(bf16::from_bits(nearest(f32::NAN)).is_nan());
        for bits in (0..u32::MAX).step_by(65_521) {
            let x = f32::from_bits(bits);
            assert_eq!(nearest(x), bf16::from_f32(x).to_bits(), "{bits:x}");
        }
    }
}
