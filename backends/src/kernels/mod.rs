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
