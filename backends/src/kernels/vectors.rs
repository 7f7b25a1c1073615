//! Plain loops on the widest vectors of the processor.

/// Calls `f`, compiled for AVX-512 where the processor has it: without that, the compiler makes vectors of 4 numbers. The numbers are
/// the same, as it does not join a product and a sum by itself.
#[inline(always)]
pub(super) fn on_vectors<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
    {
        // SAFETY: the processor has the features that the function is compiled for.
        return unsafe { wide(f) };
    }
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512vl")]
fn wide<R>(f: impl FnOnce() -> R) -> R {
    f()
}
