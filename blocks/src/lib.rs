//! Weights in blocks of 2 to 8 bits, as GGUF files hold them.
//!
//! A row of a matrix is cut into blocks of 32 or 256 values. A block has small whole numbers, one for each value, and the
//! scales that turn them into values. [`BlockType`] names a layout, [`Format`] takes its blocks apart, and [`Blocks`] is a
//! matrix. [`quantise`] makes blocks of values.
//!
//! This crate knows no file, no tensor and no model.

mod formats;
mod kind;
mod legacy;
mod matrix;
mod quantise;
mod super_blocks;

/// A type for every layout, which [`Format`] is implemented for.
pub mod formats_of {
    pub use crate::{
        legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0},
        super_blocks::{Q2K, Q3K, Q4K, Q5K, Q6K},
    };
}

pub use formats::{Format, GROUP, Group, RUN};
pub use kind::BlockType;
pub use matrix::{Blocks, RowOrder};
pub use quantise::quantise;
