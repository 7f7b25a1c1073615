//! Layouts with blocks of 256 values, whose scales are small whole numbers themselves.

use crate::formats::{Format, RUN, half};

/// The number of values in a block.
const VALUES: usize = 256;
/// The number of values that are packed side by side: those of half a block have one byte in common for a bit or two.
const HALF: usize = 128;
/// The number of values between two that lie in one byte.
const LANES: usize = 32;

/// The parts of a block and of what it becomes, in their exact sizes, which the compiler needs to make vectors.
macro_rules! sized {
    ($block:ident, $quants:ident, $scales:ident, $minima:ident) => {
        let Some($block) = $block.first_chunk::<{ Self::BYTES }>() else { return };
        let Some($quants) = $quants.first_chunk_mut::<VALUES>() else { return };
        let Some($scales) = $scales.first_chunk_mut::<{ VALUES / RUN }>() else { return };
        let Some($minima) = $minima.first_chunk_mut::<{ VALUES / RUN }>() else { return };
    };
}

/// `N` bytes of a block from `at` on.
#[inline(always)]
fn part<const N: usize>(block: &[u8], at: usize) -> &[u8; N] {
    block[at..].first_chunk().expect("the block has them")
}

/// Two bits of every value: those of values `l`, `l + 32`, `l + 64` and `l + 96` of each half are in byte `l` of the half.
#[inline(always)]
fn two_bits(bytes: &[u8; 64], quants: &mut [u8; VALUES]) {
    for half in 0..VALUES / HALF {
        let bytes: &[u8; LANES] = part(bytes, half * LANES);
        for shift in 0..4 {
            let quants = &mut quants[half * HALF + shift * LANES..][..LANES];
            for lane in 0..LANES {
                quants[lane] = bytes[lane] >> (2 * shift) & 3;
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
        sized!(block, quants, scales, minima);
        let (scale, minimum) = (half(&block[80..]), half(&block[82..]));
        two_bits(part(block, 16), quants);
        let small: &[u8; VALUES / RUN] = part(block, 0);
        for run in 0..VALUES / RUN {
            scales[run] = scale * f32::from(small[run] & 15);
            minima[run] = minimum * f32::from(small[run] >> 4);
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
        sized!(block, quants, scales, minima);
        let scale = half(&block[108..]);
        two_bits(part(block, 32), quants);
        // Four is taken away where the bit of the mask is not set; the offset takes it away everywhere.
        let mask: &[u8; LANES] = part(block, 0);
        for part in 0..VALUES / LANES {
            let quants = &mut quants[part * LANES..][..LANES];
            for lane in 0..LANES {
                quants[lane] |= (mask[lane] >> part & 1) << 2;
            }
        }
        let small: &[u8; 12] = part(block, 96);
        let mut six = [0u8; VALUES / RUN];
        for run in 0..8 {
            let high = [run, run + 8].map(|run| small[8 + run % 4] >> (2 * (run / 4)) & 3);
            six[run] = small[run] & 15 | high[0] << 4;
            six[run + 8] = small[run] >> 4 | high[1] << 4;
        }
        for run in 0..VALUES / RUN {
            scales[run] = scale * (f32::from(six[run]) - 32.0);
        }
        *minima = [0.0; VALUES / RUN];
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
fn of_sub_blocks(block: &[u8], scales: &mut [f32; VALUES / RUN], minima: &mut [f32; VALUES / RUN]) {
    let factors = [half(block), half(&block[2..])];
    let small = six_bits(&block[4..16]);
    for ((factor, small), to) in factors.into_iter().zip(small).zip([scales, minima]) {
        let of_sub_block = small.map(|small| factor * f32::from(small));
        for run in 0..VALUES / RUN {
            to[run] = of_sub_block[run / 2];
        }
    }
}

/// Four bits of every value: sub-blocks `2j` and `2j + 1` are the low and the high halves of 32 bytes.
#[inline(always)]
fn four_bits(bytes: &[u8; VALUES / 2], quants: &mut [u8; VALUES]) {
    for pair in 0..VALUES / (2 * LANES) {
        let bytes: &[u8; LANES] = part(bytes, pair * LANES);
        let (low, high) = quants[pair * 2 * LANES..][..2 * LANES].split_at_mut(LANES);
        for lane in 0..LANES {
            low[lane] = bytes[lane] & 15;
            high[lane] = bytes[lane] >> 4;
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
        sized!(block, quants, scales, minima);
        four_bits(part(block, 16), quants);
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
        sized!(block, quants, scales, minima);
        four_bits(part(block, 48), quants);
        let fifth: &[u8; LANES] = part(block, 16);
        for part in 0..VALUES / LANES {
            let quants = &mut quants[part * LANES..][..LANES];
            for lane in 0..LANES {
                quants[lane] |= (fifth[lane] >> part & 1) << 4;
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
        sized!(block, quants, scales, minima);
        let scale = half(&block[208..]);
        for half in 0..VALUES / HALF {
            let low: &[u8; 2 * LANES] = part(block, half * 2 * LANES);
            let high: &[u8; LANES] = part(block, HALF + half * LANES);
            for shift in 0..4 {
                let quants = &mut quants[half * HALF + shift * LANES..][..LANES];
                for lane in 0..LANES {
                    let four = low[shift % 2 * LANES + lane] >> (4 * (shift / 2)) & 15;
                    quants[lane] = four | (high[lane] >> (2 * shift) & 3) << 4;
                }
            }
        }
        let small: &[u8; VALUES / RUN] = part(block, 192);
        for run in 0..VALUES / RUN {
            scales[run] = scale * f32::from(small[run] as i8);
        }
        *minima = [0.0; VALUES / RUN];
    }
}
