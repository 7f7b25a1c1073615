//! Layouts with blocks of 32 values.
//!
//! The low four bits of byte `i` are those of value `i`, the high ones those of value `i + 16`.

use crate::formats::{Format, half};

/// The number of values in a block.
const VALUES: usize = 32;

/// Takes a block apart whose bytes of four bits begin at `at`.
#[inline(always)]
fn four_bits(block: &[u8], at: usize, quants: &mut [u8]) {
    let (Some(bytes), Some(quants)) = (block[at..].first_chunk::<16>(), quants.first_chunk_mut::<VALUES>()) else {
        return;
    };
    for lane in 0..VALUES / 2 {
        quants[lane] = bytes[lane] & 15;
        quants[lane + VALUES / 2] = bytes[lane] >> 4;
    }
}

/// Adds the fifth bit of every value; the bits begin at `at`, in the order of the values.
#[inline(always)]
fn fifth_bits(block: &[u8], at: usize, quants: &mut [u8]) {
    let (Some(bits), Some(quants)) = (block[at..].first_chunk::<4>(), quants.first_chunk_mut::<VALUES>()) else {
        return;
    };
    // Every byte has the bits of eight values, each of which looks at its own.
    for value in 0..VALUES {
        quants[value] |= (bits[value / 8] >> (value % 8) & 1) << 4;
    }
}

/// Sets the scale and the minimum of a block, for both of its runs.
#[inline(always)]
fn set(scales: &mut [f32], minima: &mut [f32], scale: f32, minimum: f32) {
    scales.fill(scale);
    minima.fill(minimum);
}

/// [`crate::BlockType::Q4_0`]: the scale, then 16 bytes.
pub struct Q4_0;

impl Format for Q4_0 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 18;
    const OFFSET: u8 = 8;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(block, 2, quants);
        set(scales, minima, half(block), 0.0);
    }
}

/// [`crate::BlockType::Q4_1`]: the scale, the minimum, then 16 bytes. The minimum is added.
pub struct Q4_1;

impl Format for Q4_1 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 20;
    const OFFSET: u8 = 0;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(block, 4, quants);
        set(scales, minima, half(block), -half(&block[2..]));
    }
}

/// [`crate::BlockType::Q5_0`]: the scale, a bit for every value, then 16 bytes.
pub struct Q5_0;

impl Format for Q5_0 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 22;
    const OFFSET: u8 = 16;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(block, 6, quants);
        fifth_bits(block, 2, quants);
        set(scales, minima, half(block), 0.0);
    }
}

/// [`crate::BlockType::Q5_1`]: the scale, the minimum, a bit for every value, then 16 bytes. The minimum is added.
pub struct Q5_1;

impl Format for Q5_1 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 24;
    const OFFSET: u8 = 0;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        four_bits(block, 8, quants);
        fifth_bits(block, 4, quants);
        set(scales, minima, half(block), -half(&block[2..]));
    }
}

/// [`crate::BlockType::Q8_0`]: the scale, then a signed byte for every value.
pub struct Q8_0;

impl Format for Q8_0 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 34;
    const OFFSET: u8 = 128;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        let (Some(bytes), Some(quants)) = (block[2..].first_chunk::<VALUES>(), quants.first_chunk_mut::<VALUES>())
        else {
            return;
        };
        for lane in 0..VALUES {
            quants[lane] = bytes[lane] ^ 128;
        }
        set(scales, minima, half(block), 0.0);
    }
}
