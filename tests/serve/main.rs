//! The HTTP server: what clients get, what is refused, and what attackers find.

mod answers;
mod attacks;
#[path = "../common/mod.rs"]
mod common;
mod host;
mod limits;
mod refusals;
mod signals;
