//! Memory that is asked for before it is needed.

use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};

use super::{BLOCK, LINE};

/// Asks for the next block of a weight, a few lines between one tile and the next: at few rows, reading the weight would otherwise take a
/// fifth of the time.
pub(super) struct Ahead<'a, T> {
    weight: &'a [T],
    inner: usize,
    /// Bytes of a row's part in lines, and the line that comes next.
    lines: usize,
    line: usize,
    /// Where the next line's row begins, in numbers.
    row: usize,
    /// Lines of all rows, to be asked for in so many turns; and what is still to be asked for, in parts of `1 / turns`.
    all: usize,
    turns: usize,
    due: usize,
}

impl<'a, T> Ahead<'a, T> {
    /// For the block from `from` of a weight with `inner` inputs.
    pub(super) fn new(weight: &'a [T], [inner, from]: [usize; 2], turns: usize) -> Self {
        let lines = (BLOCK.min(inner - from) * size_of::<T>()).div_ceil(LINE);
        Self { weight, inner, lines, line: 0, row: from, all: weight.len() / inner * lines, turns, due: 0 }
    }

    /// A turn.
    pub(super) fn ask(&mut self) {
        self.due += self.all;
        while self.due >= self.turns {
            self.due -= self.turns;
            let at = self.weight.as_ptr().wrapping_add(self.row).wrapping_byte_add(self.line * LINE);
            // SAFETY: a hint, which faults nowhere.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
            self.line += 1;
            if self.line == self.lines {
                (self.line, self.row) = (0, self.row + self.inner);
            }
        }
    }
}
