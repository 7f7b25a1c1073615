//! The operations that backends override, on every backend that is compiled in.
//!
//! In a program of its own, so that another build of a backend needs no other build of the models.

mod every_backend;
mod not_finite;
mod operations;
