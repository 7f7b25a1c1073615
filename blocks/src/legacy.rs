//! Layouts with blocks of 32 values.
//!
//! The low four bits of byte `i` are those of value `i`, the high ones those of value `i + 16`.

use crate::formats::{Format, half};

/// The number of values in a block.
const VALUES: usize = 32;

/// Sets the scale and the minimum of a block, for both of its runs.
#[inline(always)]
fn set(scales: &mut [f32], minima: &mut [f32], scale: f32, minimum: f32) {
    scales.fill(scale);
    minima.fill(minimum);
}

/// The four bits of every value.
#[inline(always)]
fn nibbles(bytes: &[u8], quants: &mut [u8]) {
    let (low, high) = quants.split_at_mut(VALUES / 2);
    for ((byte, low), high) in bytes.iter().zip(low).zip(high) {
        (*low, *high) = (byte & 15, byte >> 4);
    }
}

/// Adds the fifth bit of every value, which `bits` has in the order of the values.
#[inline(always)]
fn fifth(bits: &[u8], quants: &mut [u8]) {
    let bits = u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]);
    for (i, quant) in quants.iter_mut().enumerate().take(VALUES) {
        *quant |= ((bits >> i & 1) << 4) as u8;
    }
}

/// [`crate::BlockType::Q4_0`]: the scale, then 16 bytes.
pub struct Q4_0;

impl Format for Q4_0 {
    const VALUES: usize = VALUES;
    const BYTES: usize = 18;
    const OFFSET: u8 = 8;

    #[inline(always)]
    fn unpack(block: &[u8], quants: &mut [u8], scales: &mut [f32], minima: &mut [f32]) {
        nibbles(&block[2..], quants);
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
        nibbles(&block[4..], quants);
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
        nibbles(&block[6..], quants);
        fifth(&block[2..], quants);
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
        nibbles(&block[8..], quants);
        fifth(&block[4..], quants);
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
        for (quant, byte) in quants.iter_mut().zip(&block[2..]) {
            *quant = byte ^ 128;
        }
        set(scales, minima, half(block), 0.0);
    }
}
