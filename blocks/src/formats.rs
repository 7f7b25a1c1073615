//! Blocks, taken apart: what all layouts have in common.

/// The number of values that have one scale and one minimum in every layout.
pub const RUN: usize = 16;
/// The number of values in a [`Group`].
pub const GROUP: usize = 256;

/// A layout of blocks that can be taken apart.
///
/// A value is `scale · (quant − OFFSET) − minimum`, where `quant` is a whole number of a byte, and every [`RUN`] values
/// have one scale and one minimum. In f32, with the product rounded before the minimum is taken away, that is ggml's value
/// to the last bit.
pub trait Format {
    /// The number of values in a block.
    const VALUES: usize;
    /// The number of bytes in a block.
    const BYTES: usize;
    /// The number that is taken away from every quant.
    const OFFSET: u8;

    /// Takes a block of [`Self::BYTES`] apart: [`Self::VALUES`] quants, and scales and minima of every [`RUN`] of them.
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]);
}

/// Consecutive values of a row, taken apart.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Group {
    /// A whole number for every value.
    pub quants: [u8; GROUP],
    /// A scale for every [`RUN`] of values.
    pub scales: [f32; GROUP / RUN],
    /// A minimum for every [`RUN`] of values.
    pub minima: [f32; GROUP / RUN],
}

impl Group {
    /// A group of zeros.
    pub const ZERO: Self = Self { quants: [0; GROUP], scales: [0.0; GROUP / RUN], minima: [0.0; GROUP / RUN] };

    /// The number of bytes of a whole group in a layout.
    pub const fn bytes<F: Format>() -> usize {
        GROUP / F::VALUES * F::BYTES
    }

    /// Takes `bytes` apart, up to [`Self::bytes`] of whole blocks, and returns the number of values. The rest of the group
    /// is left as it is.
    #[inline(always)]
    pub fn unpack<F: Format>(&mut self, bytes: &[u8]) -> usize {
        let runs = F::VALUES / RUN;
        let blocks = bytes.chunks_exact(F::BYTES).zip(self.quants.chunks_exact_mut(F::VALUES));
        let scales = self.scales.chunks_exact_mut(runs).zip(self.minima.chunks_exact_mut(runs));
        for ((block, quants), (scales, minima)) in blocks.zip(scales) {
            F::unpack(block, quants, scales, minima);
        }
        (bytes.len() / F::BYTES * F::VALUES).min(GROUP)
    }

    /// Writes the values of the group, as many as fit into `to`.
    #[inline(always)]
    pub fn values<F: Format>(&self, to: &mut [f32]) {
        for (i, to) in to.chunks_mut(RUN).enumerate().take(GROUP / RUN) {
            let (scale, minimum) = (self.scales[i], self.minima[i]);
            for (to, quant) in to.iter_mut().zip(&self.quants[i * RUN..]) {
                *to = scale * (f32::from(*quant) - f32::from(F::OFFSET)) - minimum;
            }
        }
    }
}

/// The f16 at the start of `bytes`, as f32. Unlike [`half::f16::to_f32`], it calls no function and has no branches.
#[inline(always)]
pub(crate) fn half(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let (exponent, mantissa) = (bits & 0x7c00, bits & 0x03ff);
    // The bias of the exponent differs by 112. Scales of 4-bit weights often are subnormal, and processors take a hundred
    // cycles for a product of a subnormal f32.
    let size = match exponent {
        0 => (mantissa as f32 * (1.0 / (1 << 24) as f32)).to_bits(),
        0x7c00 => 0x7f80_0000 | mantissa << 13,
        _ => ((bits & 0x7fff) << 13) + (112 << 23),
    };
    f32::from_bits(size | (bits & 0x8000) << 16)
}

/// Evaluates an expression with the [`Format`] of a [`crate::BlockType`].
///
/// `with_format!(kind, F => expression)` names the format `F` in the expression.
#[macro_export]
macro_rules! with_format {
    ($kind:expr, $format:ident => $body:expr) => {
        match $kind {
            $crate::BlockType::Q4_0 => {
                type $format = $crate::formats_of::Q4_0;
                $body
            }
            $crate::BlockType::Q4_1 => {
                type $format = $crate::formats_of::Q4_1;
                $body
            }
            $crate::BlockType::Q5_0 => {
                type $format = $crate::formats_of::Q5_0;
                $body
            }
            $crate::BlockType::Q5_1 => {
                type $format = $crate::formats_of::Q5_1;
                $body
            }
            $crate::BlockType::Q8_0 => {
                type $format = $crate::formats_of::Q8_0;
                $body
            }
            $crate::BlockType::Q2K => {
                type $format = $crate::formats_of::Q2K;
                $body
            }
            $crate::BlockType::Q3K => {
                type $format = $crate::formats_of::Q3K;
                $body
            }
            $crate::BlockType::Q4K => {
                type $format = $crate::formats_of::Q4K;
                $body
            }
            $crate::BlockType::Q5K => {
                type $format = $crate::formats_of::Q5K;
                $body
            }
            $crate::BlockType::Q6K => {
                type $format = $crate::formats_of::Q6K;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use half::f16;

    #[test]
    fn every_half_is_widened() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (super::half(&bits.to_le_bytes()), f16::from_bits(bits).to_f32());
            assert!(
                found == expected && found.is_sign_negative() == expected.is_sign_negative()
                    || found.is_nan() && expected.is_nan(),
                "{bits:x}"
            );
        }
    }
}
