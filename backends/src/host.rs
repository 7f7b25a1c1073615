//! The host's memory.

/// Makes the allocator keep memory that is freed, for what comes next: tensors of a prompt are tens of megabytes, and to have
/// them from the system anew for every operation takes as long as the operation. For a program's `main`; where the allocator
/// is not glibc's, nothing happens.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Before 2.35, glibc takes no more than the second.
        const THRESHOLDS: [libc::c_int; 2] = [1 << 30, 32 << 20];
        // SAFETY: these only set the allocator's thresholds.
        unsafe {
            if THRESHOLDS.into_iter().any(|bytes| libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) == 1) {
                libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLDS[0]);
            }
        }
    }
}
