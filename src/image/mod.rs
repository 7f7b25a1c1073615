//! From an image file to the pixels that a vision tower reads, as Pillow 10.2 and `CLIPImageProcessor` make them.

mod anyres;
mod clip;
mod decode;
mod dynamic;
mod grid;
mod interpolate;
mod jpeg;
mod languagebind;
mod overlay;
mod resize;

pub use anyres::{GridRule, Tiles, crops};
pub use clip::{Aspect, ClipProcessor};
pub use decode::{MAX_PIXELS, MAX_SIDE, decode, decode_bytes, decode_bytes_upright, decode_upright, is_turned, size};
pub(crate) use decode::{limits, looks_like_an_image};
pub use dynamic::{DynamicProcessor, PixelLimits};
pub use grid::Grid;
#[cfg(feature = "cli")]
pub(crate) use jpeg::encode as jpeg;
pub use overlay::{kept_patches, png};

/// An 8-bit RGB image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// The width in pixels.
    pub width: usize,
    /// The height in pixels.
    pub height: usize,
    /// The `height · width · 3` bytes, row by row.
    pub data: Vec<u8>,
}
