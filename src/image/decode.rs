//! Decodes image files to RGB as `convert('RGB')` of Pillow 10.2 does, the version that LLaVA pins: alpha is dropped,
//! not blended; 16-bit greys are clipped at 255, not scaled; and 16-bit colours lose their low byte. Of an animation,
//! the first frame is read.
//!
//! JPEGs are decoded by [`super::jpeg`]; those inside of TIFFs are not, and differ from Pillow's by some levels.
//!
//! The official code does not apply the EXIF orientation of an image (Pillow itself applies that of a TIFF). [`decode`]
//! does the same as the official code, and [`decode_upright`] turns the image as people see it.

use std::{
    fs::File,
    io::{Cursor, Read},
    path::Path,
};

use image::{
    DynamicImage, ExtendedColorType, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage,
    guess_format, metadata::Orientation,
};
use secateur_weights::impostor;

use super::{Rgb, jpeg};
use crate::{
    Error,
    files::{address, check_regular},
    unwind::guarded,
};

/// The longest side that is decoded.
pub const MAX_SIDE: u32 = 65_535;
/// The largest number of pixels that are decoded: PIL refuses larger images as decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// The most memory, in bytes, that a decoder may take: two copies of [`MAX_PIXELS`] in 16-bit RGBA are 2.9 GB.
const MAX_ALLOCATION: u64 = 4 << 30;

/// The limits of a decoder.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_ALLOCATION);
    limits
}

/// The number of first bytes by which every format is known.
const SIGN: u64 = 64;

const NO_IMAGE: &str = "not an image; JPEG, PNG, WebP, GIF, BMP and TIFF are read";

/// Whether the file at `path` begins like an image of a known format, damaged or not.
pub(crate) fn looks_like_an_image(path: &Path) -> bool {
    let read = || ImageReader::open(path).ok()?.with_guessed_format().ok()?.format();
    read().is_some()
}

/// Reads the image at `path`, with its pixels as they are stored.
///
/// # Errors
/// When the file is missing, empty, of an unknown format, damaged, or larger than [`MAX_SIDE`] or [`MAX_PIXELS`].
pub fn decode(path: &Path) -> Result<Rgb, Error> {
    decode_bytes(path, &read(path)?)
}

/// Reads the image at `path` as people see it, upright as its EXIF block says; also returns whether that turned it.
///
/// # Errors
/// As [`decode`].
pub fn decode_upright(path: &Path) -> Result<(Rgb, bool), Error> {
    decode_bytes_upright(path, &read(path)?)
}

/// Reads the image in `bytes`, which were found at `path`, upright; also returns whether its EXIF block turned it.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes_upright(path: &Path, bytes: &[u8]) -> Result<(Rgb, bool), Error> {
    let image = decode_bytes(path, bytes)?;
    Ok(match orientation(bytes) {
        Orientation::NoTransforms => (image, false),
        turned => (turn(image, turned), true),
    })
}

/// Whether the image at `path` is stored another way up than people see it.
pub fn is_turned(path: &Path) -> bool {
    read(path).is_ok_and(|bytes| orientation(&bytes) != Orientation::NoTransforms)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    const ACTION: &str = "the image cannot be read";
    if let Some(error) = address(path) {
        return Err(error);
    }
    check_regular(path, ACTION)?;
    let fail = || Error::io(path, ACTION);
    let mut file = File::open(path).map_err(fail())?;
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(SIGN).read_to_end(&mut bytes).map_err(fail())?;
    // This check comes before gigabytes of something else are read.
    if bytes.len() as u64 == SIGN && guess_format(&bytes).is_err() {
        return Err(Error::Image { path: path.to_owned(), reason: what_else(&bytes) });
    }
    file.read_to_end(&mut bytes).map_err(fail())?;
    Ok(bytes)
}

/// The sentence about a file that begins like no image: what it is instead, if that is known.
fn what_else(start: &[u8]) -> String {
    impostor(start).map_or_else(|| NO_IMAGE.to_owned(), str::to_owned)
}

/// Reads the image in `bytes`, which were found at `path`, with its pixels as they are stored.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(path: &Path, bytes: &[u8]) -> Result<Rgb, Error> {
    let fail = |reason: String| Error::Image { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("the file has 0 bytes, which is no image".to_owned()));
    }
    if guess_format(bytes).ok() == Some(ImageFormat::Jpeg) {
        let header = jpeg::header(bytes).map_err(fail)?;
        check_size(header.width, header.height).map_err(fail)?;
        return jpeg::pixels(bytes, header).map_err(fail);
    }
    // Some decoders panic on damaged files.
    guarded(|| by_library(bytes)).unwrap_or_else(|| Err("the image is damaged".to_owned())).map_err(fail)
}

/// The width and the height of the image in `bytes`, as its header has them; no pixel is decoded.
///
/// # Errors
/// As [`decode`], but for damage behind the header.
pub fn size(path: &Path, bytes: &[u8]) -> Result<[u32; 2], Error> {
    let fail = |reason: String| Error::Image { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(fail("there are 0 bytes, which is no image".to_owned()));
    }
    let [width, height] = if guess_format(bytes).ok() == Some(ImageFormat::Jpeg) {
        let header = jpeg::header(bytes).map_err(fail)?;
        [header.width, header.height]
    } else {
        let found = guarded(|| {
            let Ok(format) = guess_format(bytes) else { return Err(what_else(bytes)) };
            let mut reader = ImageReader::new(Cursor::new(bytes));
            reader.set_format(format);
            reader.limits(limits());
            reader.into_dimensions().map(<[u32; 2]>::from).map_err(|error| in_words(&error))
        });
        found.unwrap_or_else(|| Err("the image is damaged".to_owned())).map_err(fail)?
    };
    check_size(width, height).map_err(fail)?;
    Ok([width, height])
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    if width > MAX_SIDE || height > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!(
            "{width}×{height} pixels are too many; up to {MAX_SIDE} a side and {MAX_PIXELS} in all are read"
        ));
    }
    if width == 0 || height == 0 {
        return Err(format!("{width}×{height} pixels: there is nothing to see"));
    }
    Ok(())
}

/// Decodes all formats but JPEG.
fn by_library(bytes: &[u8]) -> Result<Rgb, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes));
    let Ok(format) = guess_format(bytes) else { return Err(what_else(bytes)) };
    reader.set_format(format);
    // Frames inside an animation can be larger than the size that it declares.
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(|error| in_words(&error))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    let grey = decoder.original_color_type() == ExtendedColorType::L16;
    let turned = match format {
        ImageFormat::Tiff => decoder.orientation().map_err(|error| in_words(&error))?,
        _ => Orientation::NoTransforms,
    };
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| in_words(&error))?;
    image.apply_orientation(turned);
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Rgb { width, height, data: to_rgb(image, grey) })
}

/// The error of a decoder in plain words.
fn in_words(error: &ImageError) -> String {
    match error {
        ImageError::Unsupported(_) => "the image is in a form of its format that is not read; save it again as PNG",
        ImageError::Limits(_) => "the image takes more memory than its size tells",
        ImageError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "the image is cut short",
        _ => "the image is damaged or cut short",
    }
    .to_owned()
}

/// The turn that makes an image upright, from its EXIF block. Decoders turn TIFFs themselves, as PIL does.
fn orientation(bytes: &[u8]) -> Orientation {
    let chunk = match guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => jpeg::exif(bytes),
        Ok(ImageFormat::Png) => png_exif(bytes),
        Ok(format @ ImageFormat::WebP) => guarded(|| {
            let mut reader = ImageReader::new(Cursor::new(bytes));
            reader.set_format(format);
            reader.limits(limits());
            reader.into_decoder().ok()?.exif_metadata().ok()?
        })
        .flatten(),
        _ => None,
    };
    let chunk = chunk.map(|chunk| chunk.strip_prefix(b"Exif\0\0").map(<[u8]>::to_vec).unwrap_or(chunk));
    chunk
        .and_then(|chunk| guarded(|| Orientation::from_exif_chunk(&chunk)).flatten())
        .unwrap_or(Orientation::NoTransforms)
}

/// The EXIF block of a PNG. It may stand behind the pixels, where the decoder does not look.
fn png_exif(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut rest = bytes.get(8..)?;
    loop {
        let (length, after) = rest.split_first_chunk()?;
        let (kind, after) = after.split_first_chunk::<4>()?;
        let length = u32::from_be_bytes(*length) as usize;
        if kind == b"eXIf" {
            return after.get(..length).map(<[u8]>::to_vec);
        }
        // A checksum follows each chunk.
        rest = after.get(length..)?.get(4..)?;
    }
}

fn turn(image: Rgb, turned: Orientation) -> Rgb {
    let Rgb { width, height, data } = image;
    let Some(image) = RgbImage::from_raw(width as u32, height as u32, data) else {
        return Rgb { width: 0, height: 0, data: Vec::new() };
    };
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(turned);
    Rgb { width: image.width() as usize, height: image.height() as usize, data: image.into_rgb8().into_raw() }
}

/// The bytes of an image as RGB. `grey` says that the file has 16-bit greys, to which the decoder may have added an
/// alpha channel for a transparent colour.
fn to_rgb(image: DynamicImage, grey: bool) -> Vec<u8> {
    match image {
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
