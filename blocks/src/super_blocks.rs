//! Layouts with blocks of 256 values, whose scales are small whole numbers themselves.

use crate::formats::{Format, RUN, half};

/// The number of values in a block.
const VALUES: usize = 256;
/// The number of values that are packed side by side: those of half a block have one byte in common for a bit or two.
const HALF: usize = 128;
/// The number of values between two that lie in one byte.
const LANES: usize = 32;

/// Two bits of every value: those of values `l`, `l + 32`, `l + 64` and `l + 96` of each half are in byte `l` of the half.
#[inline(always)]
fn two_bits(bytes: &[u8], mut put: impl FnMut(usize, u8)) {
    for (half, bytes) in bytes.chunks_exact(LANES).enumerate().take(VALUES / HALF) {
        for part in 0..4 {
            for (lane, byte) in bytes.iter().enumerate() {
                put(half * HALF + part * LANES + lane, byte >> (2 * part) & 3);
            }
        }
    }
}

/// [`crate::BlockType::Q2K`]: 16 bytes of scales (low) and minima (high), 64 bytes of values, the scale of the scales, and
/// that of the minima.
pub struct Q2K;

impl Format for Q2K {
    const VALUES: usize = VALUES;
    const BYTES: usize = 84;
    const OFFSET: u8 = 0;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        let (scale, minimum) = (half(&block[80..]), half(&block[82..]));
        two_bits(&block[16..80], |at, bits| quants[at] = bits);
        for ((byte, own), own_minimum) in block[..16].iter().zip(scales).zip(minima) {
            *own = scale * f32::from(byte & 15);
            *own_minimum = minimum * f32::from(byte >> 4);
        }
    }
}

/// [`crate::BlockType::Q3K`]: a mask of 32 bytes, 64 bytes of values, 12 bytes of scales, and the scale of the scales.
pub struct Q3K;

impl Format for Q3K {
    const VALUES: usize = VALUES;
    const BYTES: usize = 110;
    const OFFSET: u8 = 4;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        let (mask, small, scale) = (&block[..32], &block[96..108], half(&block[108..]));
        two_bits(&block[32..96], |at, bits| quants[at] = bits);
        // Four is taken away where the bit of the mask is not set; the offset takes it away everywhere.
        for (part, quants) in quants.chunks_exact_mut(LANES).enumerate().take(VALUES / LANES) {
            for (quant, mask) in quants.iter_mut().zip(mask) {
                *quant |= (mask >> part & 1) << 2;
            }
        }
        for (run, own) in scales.iter_mut().enumerate().take(VALUES / RUN) {
            let low = if run < 8 { small[run] & 15 } else { small[run - 8] >> 4 };
            let high = small[8 + run % 4] >> (2 * (run / 4)) & 3;
            *own = scale * (f32::from(low | high << 4) - 32.0);
        }
        minima[..VALUES / RUN].fill(0.0);
    }
}

/// The scales and minima of 6 bits of 8 sub-blocks in 12 bytes, as two lists of 8 bytes.
#[inline(always)]
fn six_bits(packed: &[u8]) -> [[u8; 8]; 2] {
    const FOURS: u32 = 0x0f0f_0f0f;
    const SIXES: u32 = 0x3f3f_3f3f;
    const TWOS: u32 = 0x0303_0303;
    let word = |at: usize| u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]]);
    let [scales, minima, rest] = [word(0), word(4), word(8)];
    let join = |low: u32, high: u32| {
        let ([a, b, c, d], [e, f, g, h]) = (low.to_le_bytes(), high.to_le_bytes());
        [a, b, c, d, e, f, g, h]
    };
    [
        join(scales & SIXES, rest & FOURS | (scales >> 6 & TWOS) << 4),
        join(minima & SIXES, rest >> 4 & FOURS | (minima >> 6 & TWOS) << 4),
    ]
}

/// Scales and minima of the runs, two for each sub-block of 32 values.
#[inline(always)]
fn of_sub_blocks(block: &[u8], scales: &mut [f32], minima: &mut [f32]) {
    let factors = [half(block), half(&block[2..])];
    let small = six_bits(&block[4..16]);
    for ((factor, small), to) in factors.into_iter().zip(small).zip([scales, minima]) {
        for (small, to) in small.into_iter().zip(to.chunks_exact_mut(2)) {
            to.fill(factor * f32::from(small));
        }
    }
}

/// Four bits of every value: sub-blocks `2j` and `2j + 1` are the low and the high halves of 32 bytes.
#[inline(always)]
fn four_bits(bytes: &[u8], quants: &mut [u8]) {
    for (bytes, quants) in bytes.chunks_exact(LANES).zip(quants.chunks_exact_mut(2 * LANES)) {
        let (low, high) = quants.split_at_mut(LANES);
        for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
            (*low, *high) = (byte & 15, byte >> 4);
        }
    }
}

/// [`crate::BlockType::Q4K`]: the scale of the scales and that of the minima, 12 bytes of them, 128 bytes of values.
pub struct Q4K;

impl Format for Q4K {
    const VALUES: usize = VALUES;
    const BYTES: usize = 144;
    const OFFSET: u8 = 0;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(&block[16..144], quants);
        of_sub_blocks(block, scales, minima);
    }
}

/// [`crate::BlockType::Q5K`]: as [`Q4K`], with 32 bytes of fifth bits before the values.
pub struct Q5K;

impl Format for Q5K {
    const VALUES: usize = VALUES;
    const BYTES: usize = 176;
    const OFFSET: u8 = 0;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(&block[48..176], quants);
        for (part, quants) in quants.chunks_exact_mut(LANES).enumerate().take(VALUES / LANES) {
            for (quant, bits) in quants.iter_mut().zip(&block[16..48]) {
                *quant |= (bits >> part & 1) << 4;
            }
        }
        of_sub_blocks(block, scales, minima);
    }
}

/// [`crate::BlockType::Q6K`]: 128 bytes of low bits, 64 bytes of high bits, 16 signed scales, and the scale of the scales.
pub struct Q6K;

impl Format for Q6K {
    const VALUES: usize = VALUES;
    const BYTES: usize = 210;
    const OFFSET: u8 = 32;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        let (low, high, scale) = (&block[..128], &block[128..192], half(&block[208..]));
        for (half, quants) in quants.chunks_exact_mut(HALF).enumerate().take(VALUES / HALF) {
            let (low, high) = (&low[half * 64..][..64], &high[half * 32..][..32]);
            for (part, quants) in quants.chunks_exact_mut(LANES).enumerate() {
                let low = &low[part % 2 * LANES..][..LANES];
                for ((quant, low), high) in quants.iter_mut().zip(low).zip(high) {
                    *quant = low >> (4 * (part as u32 / 2)) & 15 | (high >> (2 * part as u32) & 3) << 4;
                }
            }
        }
        for (own, small) in scales.iter_mut().zip(&block[192..208]) {
            *own = scale * f32::from(*small as i8);
        }
        minima[..VALUES / RUN].fill(0.0);
    }
}
