//! Drawings of what a method keeps of an image or a video, and of what it ranks patches by.

mod arranged;
mod heat;

pub(crate) use arranged::{arranged, arranged_whole, in_padding, is_padded};
pub(crate) use heat::{ALPHA, HeatBy, drawn, with_bar};
