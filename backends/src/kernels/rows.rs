//! Rows of a weight, as kernels read them: in place, or made on their way into the cache.

use std::ops::Range;

/// A weight `[out, in]` of which kernels read parts of rows.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "only kernels for x86 look where rows lie"))]
pub(crate) trait Rows<T>: Sync {
    /// Whether parts are read in place, from memory that stays.
    fn in_place(&self) -> bool;

    /// The numbers of a row at `inputs`: the weight's own, or in `buffer`.
    ///
    /// # Panics
    /// When they are not there.
    fn part<'s>(&'s self, row: usize, inputs: Range<usize>, buffer: &'s mut Vec<T>) -> &'s [T];

    /// The address in memory of what becomes a number of a row, for prefetches; both are there.
    fn place(&self, row: usize, input: usize) -> *const u8;

    /// The number of bytes in memory of what becomes `inputs` numbers of a row.
    fn bytes(&self, inputs: usize) -> usize;
}

/// A weight of floats, row after row.
pub(super) struct Floats<'w, T> {
    pub(super) weight: &'w [T],
    pub(super) inner: usize,
}

impl<T: Sync> Rows<T> for Floats<'_, T> {
    fn in_place(&self) -> bool {
        true
    }

    fn part<'s>(&'s self, row: usize, inputs: Range<usize>, _: &'s mut Vec<T>) -> &'s [T] {
        &self.weight[row * self.inner..][..self.inner][inputs]
    }

    fn place(&self, row: usize, input: usize) -> *const u8 {
        self.weight[row * self.inner + input..].as_ptr().cast()
    }

    fn bytes(&self, inputs: usize) -> usize {
        inputs * size_of::<T>()
    }
}
