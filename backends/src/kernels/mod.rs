//! Fast bodies, used by the backend files only.

pub(crate) mod attend;
pub(crate) mod linear16;
pub(crate) mod widen;
