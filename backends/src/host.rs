//! The host's memory and threads.

/// Prepares both for tensors. For a program's `main`, before anything else.
pub fn prepare_host() {
    keep_freed_memory();
    work_on_this_thread();
}

/// Makes the calling thread one of those that share the work: otherwise it hands every operation over and sleeps until it is
/// done, and a token takes hundreds of operations.
fn work_on_this_thread() {
    // Where threads are set up already, they stay as they are.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

/// Makes the allocator keep memory that is freed, for what comes next: tensors of a prompt are tens of megabytes, and to have
/// them from the system anew for every operation takes as long as the operation. Where the allocator is not glibc's, nothing happens.
fn keep_freed_memory() {
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
