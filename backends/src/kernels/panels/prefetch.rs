//! Prefetching of memory before it is needed.

use std::{
    arch::x86_64::{_MM_HINT_T0, _mm_prefetch},
    ops::Range,
};

use super::LINE;
use crate::kernels::rows::Rows;

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
    /// Prefetching of the next `block` inputs from `from` on in some rows of a weight, which has `inner` inputs in a row.
    pub(super) fn new<T>(weight: &dyn Rows<T>, rows: &Range<usize>, [inner, from]: [usize; 2], block: usize) -> Self {
        let lines = weight.bytes(block.min(inner - from)).div_ceil(LINE);
        let stride = weight.bytes(inner);
        let row = weight.place(rows.start, from).addr();
        Self { row, stride, last: row + (rows.len() - 1) * stride, lines, line: 0 }
    }

    /// Prefetching of nothing but a line that is there already.
    pub(super) fn nothing<T>(there: &[T]) -> Self {
        let row = there.as_ptr().addr();
        Self { row, stride: 0, last: row, lines: 1, line: 0 }
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
