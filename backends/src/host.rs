//! The host's memory and threads.

use std::num::NonZero;

#[cfg(any(feature = "flex", feature = "ndarray"))]
use crate::{DeviceInfo, DeviceKind};

/// Prepares the host's memory and threads for tensors. Call it first in a program's `main`, if that thread runs models:
/// it becomes one of the workers, and other threads that hand work over wait until it works, too.
pub fn prepare_host() {
    keep_freed_memory();
    work_on_this_thread();
}

/// Makes the calling thread one of the workers: otherwise it hands every operation over and sleeps until it is done,
/// and a token takes hundreds of operations.
fn work_on_this_thread() {
    // With only one worker, it must be a thread of its own, or nobody would work for other threads.
    let asked = std::env::var("RAYON_NUM_THREADS").ok().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
    let threads = asked.or_else(|| std::thread::available_parallelism().ok().map(NonZero::get)).unwrap_or(1);
    if threads < 2 {
        return;
    }
    // If threads are set up already, they stay as they are.
    let _ = rayon::ThreadPoolBuilder::new().use_current_thread().build_global();
}

/// Makes the allocator keep freed memory for the next tensors: tensors of a prompt are tens of megabytes, and to
/// allocate them from the system for every operation takes as long as the operation. It does nothing if the allocator
/// is not glibc's.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // Before 2.35, glibc takes no more than the second threshold.
        const THRESHOLDS: [libc::c_int; 2] = [1 << 30, 32 << 20];
        // SAFETY: these only set the allocator's thresholds.
        unsafe {
            if THRESHOLDS.into_iter().any(|bytes| libc::mallopt(libc::M_MMAP_THRESHOLD, bytes) == 1) {
                libc::mallopt(libc::M_TRIM_THRESHOLD, THRESHOLDS[0]);
            }
        }
    }
}

/// The only device of a backend for CPUs.
#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) fn devices() -> Vec<DeviceInfo> {
    vec![DeviceInfo { name: processor(), kind: DeviceKind::Cpu, memory: memory(), largest: None }]
}

/// The processor's name, or its architecture where the system has no file of it.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn processor() -> String {
    let found = std::fs::read_to_string("/proc/cpuinfo").ok();
    let name = found.as_deref().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim())
    });
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    format!("{}, {cores} threads", name.unwrap_or(std::env::consts::ARCH))
}

/// The machine's memory in bytes, where the system has a file of it: on Linux.
#[cfg(any(feature = "flex", feature = "ndarray", all(feature = "wgpu", target_vendor = "apple")))]
pub(crate) fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
}
