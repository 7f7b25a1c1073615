//! Fast bodies of operations, used by the backend files only.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
pub(crate) mod attention;
pub(crate) mod blocks;
pub(crate) mod cache;
mod columns;
pub(crate) mod elementwise;
#[cfg(any(feature = "train", test))]
pub(crate) mod gradients;
mod heads;
pub(crate) mod instructions;
pub(crate) mod linear;
#[cfg(any(test, target_arch = "x86_64"))]
mod nearest;
pub(crate) mod one_query;
#[cfg(target_arch = "x86_64")]
mod panels;
pub(crate) mod received;
pub(crate) mod rotate;
mod rounded;
mod rows;
pub(crate) mod select;
mod turns;
mod vectors;
pub(crate) mod widen;
