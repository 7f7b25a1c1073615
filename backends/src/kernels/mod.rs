//! Fast bodies, used by the backend files only.

pub(crate) mod attend;
pub(crate) mod attention;
mod columns;
pub(crate) mod elementwise;
mod heads;
pub(crate) mod linear16;
pub(crate) mod rotate;
pub(crate) mod rounded;
pub(crate) mod widen;
