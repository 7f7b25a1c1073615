//! Prefetching of memory before it is needed.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::{BLOCK, LINE};

/// Prefetches the next block of a weight while tiles go along this one, line by line. In bursts, prefetches would hold
/// up the tiles' own reads, and at few rows reading the weight would take as long as multiplying it. There are no
/// branches: with them, tiles on AVX2 leave their registers.
pub(super) struct Prefetch {
    /// The address of a row's part, the distance to the next row's, and the address of the last row's, in bytes.
    row: usize,
    stride: usize,
    last: usize,
    /// The number of lines of a row's part, and the line that comes next.
    lines: usize,
    line: usize,
}

impl Prefetch {
    /// Prefetching of the block from `from` of a weight, which is not empty and has `inner` elements in a row.
    pub(super) fn new<T>(weight: &[T], [inner, from]: [usize; 2]) -> Self {
        let lines = (BLOCK.min(inner - from) * size_of::<T>()).div_ceil(LINE);
        let stride = inner * size_of::<T>();
        let row = weight[from..].as_ptr().addr();
        Self { row, stride, last: row + (weight.len() / inner - 1) * stride, lines, line: 0 }
    }

    /// Prefetching of nothing but a line that is there already.
    pub(super) fn nothing<T>(there: &[T]) -> Self {
        Self::new(&there[..1], [1, 0])
    }

    /// Prefetches one line; the last row's lines once more when all are through.
    #[inline(always)]
    pub(super) fn ask(&mut self) {
        // SAFETY: a hint, which faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(self.row + self.line * LINE)) };
        self.line += 1;
        let is_whole = self.line == self.lines;
        self.line = if is_whole { 0 } else { self.line };
        self.row = (self.row + if is_whole { self.stride } else { 0 }).min(self.last);
    }
}
