//! Memory that is asked for before it is needed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{BLOCK, LINE, PACE};

/// Asks for the next block of a weight while tiles go along this one, a few lines at a time: in bursts, requests hold up what the tiles
/// read meanwhile, and at few rows reading the weight would take as long as multiplying it.
pub(super) struct Ahead {
    /// Where the block begins; its rows are `stride` bytes apart.
    block: *const u8,
    stride: usize,
    /// Lines of a row's part, and of all.
    lines: usize,
    all: usize,
    /// The line of all that comes next, and its place in the row.
    line: usize,
    place: usize,
    /// Lines at a time.
    share: usize,
}

impl Ahead {
    /// Nothing to ask for.
    pub(super) fn nothing() -> Self {
        Self::new::<f32>(&[], [1, 1], 0)
    }

    /// For the block from `from` of a weight with `inner` elements in a row, while tiles take `steps`.
    pub(super) fn new<T>(weight: &[T], [inner, from]: [usize; 2], steps: usize) -> Self {
        let lines = (BLOCK.min(inner - from) * size_of::<T>()).div_ceil(LINE);
        let all = weight.len() / inner * lines;
        let block = weight.as_ptr().wrapping_add(from).cast();
        let share = all.div_ceil((steps / PACE).max(1));
        Self { block, stride: inner * size_of::<T>(), lines, all, line: 0, place: 0, share }
    }

    /// Every [`PACE`] steps.
    #[inline(always)]
    pub(super) fn ask(&mut self) {
        let end = self.all.min(self.line + self.share);
        for _ in self.line..end {
            // SAFETY: a hint, which faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.block.wrapping_add(self.place * LINE).cast()) };
            self.place += 1;
            if self.place == self.lines {
                (self.place, self.block) = (0, self.block.wrapping_add(self.stride));
            }
        }
        self.line = end;
    }
}
