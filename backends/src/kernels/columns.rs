//! A matrix that threads fill column by column.

/// A pointer through which threads write disjoint columns, which slices cannot express.
pub(super) struct Columns<T>(pub(super) *mut T);
// SAFETY: each thread writes the columns of its own part only.
unsafe impl<T> Sync for Columns<T> {}

impl<T> Columns<T> {
    /// The element number `at`, counted along the rows.
    ///
    /// # Safety
    /// It must be in the matrix.
    pub(super) unsafe fn at(&self, at: usize) -> *mut T {
        // SAFETY: by the caller.
        unsafe { self.0.add(at) }
    }
}
