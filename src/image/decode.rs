//! Decodes picture files to RGB the way PIL's `convert('RGB')` does: alpha is dropped, not blended; the EXIF
//! orientation is not applied, because the official code does not apply it; 16-bit greys are clipped at 255, not
//! scaled, and 16-bit colours lose their low byte. The first frame stands for an animation.

use std::{
    io::{BufReader, Cursor},
    path::Path,
};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits};

use super::Rgb;
use crate::Error;

/// The longest side that is decoded.
pub const MAX_SIDE: u32 = 65_535;
/// The most pixels that are decoded: where PIL refuses a picture as a decompression bomb.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The most memory that a decoder may take: two copies of [`MAX_PIXELS`] in 16-bit RGBA are 2.9 GB.
const MAX_ALLOCATION: u64 = 4 << 30;

/// What a decoder may take.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOCATION);
    limits
}

/// Whether the file at `path` begins like a picture of a known format, damaged or not.
pub(crate) fn looks_like_a_picture(path: &Path) -> bool {
    let read = || ImageReader::open(path).ok()?.with_guessed_format().ok()?.format();
    read().is_some()
}

/// Reads the picture at `path`.
///
/// # Errors
/// When the file is missing, empty, of an unknown format, damaged, or larger than [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn decode(path: &Path) -> Result<Rgb, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "the image cannot be read"))?;
    decode_bytes(path, &bytes)
}

/// Reads the picture in `bytes`, which were found at `path`.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(path: &Path, bytes: &[u8]) -> Result<Rgb, Error> {
    let fail = |reason: String| Error::Image { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("the file has 0 bytes, which is no image".to_owned()));
    }
    let mut reader =
        ImageReader::new(BufReader::new(Cursor::new(bytes))).with_guessed_format().map_err(|e| fail(e.to_string()))?;
    if reader.format().is_none() {
        return Err(fail("not an image; JPEG, PNG, WebP, GIF, BMP and TIFF are read".to_owned()));
    }
    // Frames inside an animation can be larger than the size that it declares.
    reader.limits(limits());
    let decoder = reader.into_decoder().map_err(|e| fail(format!("the image cannot be decoded: {e}")))?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(fail(format!(
            "{width}×{height} pixels are too many; up to {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
        )));
    }
    if width == 0 || height == 0 {
        return Err(fail(format!("{width}×{height} pixels: there is nothing to see")));
    }
    let picture =
        DynamicImage::from_decoder(decoder).map_err(|e| fail(format!("the image is damaged or cut short: {e}")))?;
    let data = to_rgb(picture);
    Ok(Rgb { width: width as usize, height: height as usize, data })
}

fn to_rgb(picture: DynamicImage) -> Vec<u8> {
    match picture {
        DynamicImage::ImageLuma16(grey) => grey.into_raw().into_iter().flat_map(|v| [v.min(255) as u8; 3]).collect(),
        DynamicImage::ImageLumaA16(grey) => {
            grey.into_raw().chunks_exact(2).flat_map(|p| [(p[0] >> 8) as u8; 3]).collect()
        }
        DynamicImage::ImageRgb16(rgb) => rgb.into_raw().into_iter().map(|v| (v >> 8) as u8).collect(),
        DynamicImage::ImageRgba16(rgba) => {
            rgba.into_raw().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]].map(|v| (v >> 8) as u8)).collect()
        }
        other => other.into_rgb8().into_raw(),
    }
}
