//! Decodes picture files to RGB the way PIL's `convert('RGB')` does: alpha is dropped, not blended; the EXIF
//! orientation is not applied, because the official code does not apply it (that of a TIFF is, by PIL itself); 16-bit greys are clipped at 255, not
//! scaled, and 16-bit colours lose their low byte. The first frame stands for an animation.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits, guess_format,
    metadata::Orientation,
};

use super::{Rgb, jpeg::has_end};
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

/// Bytes by which every format is known.
const SIGN: u64 = 64;

const NO_PICTURE: &str = "not an image; JPEG, PNG, WebP, GIF, BMP and TIFF are read";

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
    let fail = || Error::io(path, "the image cannot be read");
    let mut file = File::open(path).map_err(fail())?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(SIGN).read_to_end(&mut bytes).map_err(fail())?;
    // Before gigabytes of something else are read.
    if bytes.len() as u64 == SIGN && guess_format(&bytes).is_err() {
        return Err(Error::Image { path: path.to_owned(), reason: NO_PICTURE.to_owned() });
    }
    file.read_to_end(&mut bytes).map_err(fail())?;
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
        return Err(fail(NO_PICTURE.to_owned()));
    }
    let format = reader.format();
    // Frames inside an animation can be larger than the size that it declares.
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|e| fail(format!("the image cannot be decoded: {e}")))?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(fail(format!(
            "{width}×{height} pixels are too many; up to {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
        )));
    }
    if width == 0 || height == 0 {
        return Err(fail(format!("{width}×{height} pixels: there is nothing to see")));
    }
    let damaged = |e| fail(format!("the image is damaged or cut short: {e}"));
    if format == Some(ImageFormat::Jpeg) && !has_end(bytes) {
        return Err(fail("the image is cut short: the mark at its end is missing".to_owned()));
    }
    let grey = decoder.original_color_type() == ExtendedColorType::L16;
    let turned = match format {
        Some(ImageFormat::Tiff) => decoder.orientation().map_err(damaged)?,
        _ => Orientation::NoTransforms,
    };
    let mut picture = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    picture.apply_orientation(turned);
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Ok(Rgb { width, height, data: to_rgb(picture, grey) })
}

/// `grey`: 16-bit greys in the file, to which the decoder may have added an alpha channel for a colour that is transparent.
fn to_rgb(picture: DynamicImage, grey: bool) -> Vec<u8> {
    match picture {
        DynamicImage::ImageLumaA16(pixels) if grey => {
            pixels.into_raw().chunks_exact(2).flat_map(|p| [p[0].min(255) as u8; 3]).collect()
        }
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
