//! The engine in this process, on every backend that is compiled in: goldens stage by stage, contracts over the registries, and the
//! built-in checkpoint.
//!
//! One program for all: a model's generic code is compiled once for each backend, and a GPU's kernels once for all tests.

#[path = "../common/mod.rs"]
mod common;
mod contracts;
mod demo;
mod fuzz;
mod goldens;
#[cfg(feature = "flex")]
mod reuse;
