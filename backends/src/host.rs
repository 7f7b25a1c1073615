//! The host's memory and threads.

use std::num::NonZero;

/// Prepares both for tensors. For a program's `main`, before anything else, if that is the thread that runs models: it becomes
/// one of the workers, and others that hand work over wait until it works, too.
pub fn prepare_host() {
    keep_freed_memory();
    work_on_this_thread();
}

/// Makes the calling thread one of those that share the work: otherwise it hands every operation over and sleeps until it is
/// done, and a token takes hundreds of operations.
fn work_on_this_thread() {
    // A worker of its own is needed where there is one only, or nobody would work for other threads.
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
    let threads = asked.or_else(|| std::thread::available_parallelism().ok().map(NonZero::get)).unwrap_or(1);
    if threads < 2 {
        return;
    }
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
