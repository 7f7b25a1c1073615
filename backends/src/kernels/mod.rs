//! Fast bodies, used by the backend files only.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub(crate) mod attention;
pub(crate) mod cache;
mod columns;
pub(crate) mod elementwise;
pub(crate) mod gradients;
mod heads;
pub(crate) mod linear;
pub(crate) mod one_query;
#[cfg(target_arch = "x86_64")]
mod panels;
pub(crate) mod rotate;
pub(crate) mod rounded;
mod turns;
mod vectors;
pub(crate) mod widen;

/// Whether the processor has a matrix unit that this process may use.
#[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
pub(crate) fn has_matrix_unit() -> bool {
    amx::is_there()
}
