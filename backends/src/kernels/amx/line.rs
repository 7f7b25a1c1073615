//! A row of a tile: 32 bf16 numbers.

use half::bf16;

use super::transpose::TILE;

/// The number of inputs that an instruction takes.
pub(super) const WIDTH: usize = 32;
/// A row of a tile, aligned so that no load touches two lines of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [bf16; WIDTH]);

impl Line {
    pub(super) const ZERO: Self = Self([bf16::ZERO; WIDTH]);

    /// The row as pairs of two numbers.
    pub(super) fn pairs(self) -> [u32; TILE] {
        // SAFETY: both are 64 bytes, of which any are numbers.
        unsafe { std::mem::transmute(self) }
    }
}
