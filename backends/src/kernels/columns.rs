//! A matrix that threads fill column by column.

/// Where they write: disjoint columns, which slices cannot express.
pub(super) struct Columns(pub(super) *mut f32);
// SAFETY: each thread writes the columns of its own part only.
unsafe impl Sync for Columns {}

impl Columns {
    /// The element number `at`, counted along the rows.
    ///
    /// # Safety
    /// It must be in the matrix.
    pub(super) unsafe fn at(&self, at: usize) -> *mut f32 {
        // SAFETY: by the caller.
        unsafe { self.0.add(at) }
    }
}
