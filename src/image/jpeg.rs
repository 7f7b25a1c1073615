//! JPEG files, pixel for pixel as Pillow reads them.
//!
//! Pillow reads JPEGs with libjpeg-turbo, whose decoding is fixed integer arithmetic: the slow-integer inverse DCT,
//! "fancy" upsampling of chroma, and rounded YCbCr tables. `mozjpeg` is that library, built from its C sources with
//! `cc` alone. Decoders written in Rust round differently: on photos by up to 3 levels of 255, and a method whose
//! scores nearly tie then keeps other patches.
//!
//! Files that Pillow (10.2, libjpeg-turbo 3.0.1) refuses are refused here: a file that ends before the decoder has all
//! it asks for, bytes before the first marker, samples of other than 8 bits, 2 or more than 4 components. Different
//! from Pillow: lossless JPEGs are refused, and so are files with more scans than [`MAX_SCANS`], which take minutes.

use std::{
    any::Any,
    cell::Cell,
    io::{self, BufRead, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

use mozjpeg::{ColorSpace, Decompress};

use super::Rgb;

/// The largest number of scans of a progressive file. Encoders write about ten; every scan walks over all blocks of the
/// image again.
const MAX_SCANS: usize = 500;

/// The part of a JPEG file's header that decides how it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    /// The number of components: 1 (grey), 3 (colour) or 4 (CMYK).
    components: u8,
}

/// Reads the header, as strictly as Pillow does.
///
/// # Errors
/// A sentence about the error, without the file's name.
pub(super) fn header(bytes: &[u8]) -> Result<Header, String> {
    let cut = || "the image is cut short: it ends before its pixels begin".to_owned();
    if !bytes.starts_with(&[0xff, 0xd8, 0xff]) {
        return Err("no JPEG file: bytes come before its first marker".to_owned());
    }
    let mut frame = None;
    let mut at = 2;
    loop {
        let &[mark, code] = bytes.get(at..at + 2).and_then(|pair| pair.first_chunk()).ok_or_else(cut)?;
        match (mark, code) {
            // Bytes between segments, escaped or not, and fill bytes before a marker.
            (0xff, 0xff) => at += 1,
            (0xff, 0x00 | 0xc8 | 0xd0..=0xd9 | 0xf0..=0xfd) => at += 2,
            (0xff, 0x01..=0xbf) => return Err(format!("the image is damaged: 0x{code:02x} is no marker of a JPEG")),
            (0xff, _) => {
                let length = bytes.get(at + 2..at + 4).and_then(|pair| pair.first_chunk().copied()).ok_or_else(cut)?;
                let end = at + 2 + usize::from(u16::from_be_bytes(length)).max(2);
                let segment = bytes.get(at + 4..end).ok_or_else(cut)?;
                match code {
                    0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf | 0xde => frame = Some(sizes(code, segment)?),
                    0xdb => check_tables(segment)?,
                    0xda => break,
                    _ => {}
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    let (width, height, components) = frame.ok_or("the image is damaged: its size is missing")?;
    Ok(Header { width, height, components })
}

/// The width, the height and the number of components in a frame header.
fn sizes(code: u8, segment: &[u8]) -> Result<(u32, u32, u8), String> {
    let Some(&[bits, height_high, height_low, width_high, width_low, components]) = segment.first_chunk() else {
        return Err("the image is damaged: its frame has no size".to_owned());
    };
    if bits != 8 {
        return Err(format!("a JPEG with {bits} bits a sample, which is not read; save it with 8"));
    }
    if matches!(code, 0xc3 | 0xc5..=0xc7 | 0xcb | 0xcd..=0xcf | 0xde) {
        return Err("a lossless or hierarchical JPEG, which is not read; save it as PNG".to_owned());
    }
    if !matches!(components, 1 | 3 | 4) {
        return Err(format!("a JPEG with {components} components, which is not read; 1, 3 and 4 are"));
    }
    let number = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Ok((number(width_high, width_low), number(height_high, height_low), components))
}

/// Checks that quantisation tables are whole.
fn check_tables(mut segment: &[u8]) -> Result<(), String> {
    while let Some(&kind) = segment.first() {
        let size = if kind < 16 { 65 } else { 129 };
        segment = segment.get(size..).ok_or("the image is damaged: a quantisation table is cut short")?;
    }
    Ok(())
}

/// The EXIF block of a file; `None` where there is none.
pub(super) fn exif(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut at = 2;
    loop {
        let &[mark, code] = bytes.get(at..at + 2)?.first_chunk()?;
        match (mark, code) {
            (0xff, 0xff) => at += 1,
            (0xff, 0x00..=0xbf | 0xc8 | 0xd0..=0xd9 | 0xf0..=0xfd) => at += 2,
            // Here the first scan starts.
            (0xff, 0xda) => return None,
            (0xff, _) => {
                let end = at + 2 + usize::from(u16::from_be_bytes(*bytes.get(at + 2..at + 4)?.first_chunk()?)).max(2);
                let block = bytes.get(at + 4..end)?.strip_prefix(b"Exif\0\0").filter(|_| code == 0xe1);
                if let Some(block) = block {
                    return Some(block.to_vec());
                }
                at = end;
            }
            _ => at += 1,
        }
    }
}

/// The bytes of a JPEG file of `image`, for people to look at; empty if the image is too large for one.
#[cfg(feature = "cli")]
pub(crate) fn encode(image: &Rgb, quality: u8) -> Vec<u8> {
    let encoded = catch_unwind(|| {
        let mut encoder = mozjpeg::Compress::new(ColorSpace::JCS_RGB);
        encoder.set_size(image.width, image.height);
        encoder.set_fastest_defaults();
        encoder.set_quality(f32::from(quality));
        let mut started = encoder.start_compress(Vec::new())?;
        started.write_scanlines(&image.data)?;
        started.finish()
    });
    encoded.ok().and_then(io::Result::ok).unwrap_or_default()
}

/// Decodes the image of a file whose [`header`] was read, and whose size is bounded.
///
/// # Errors
/// As [`header`].
pub(super) fn pixels(bytes: &[u8], header: Header) -> Result<Rgb, String> {
    let scans = bytes.windows(2).filter(|pair| *pair == [0xff, 0xda]).count();
    if scans > MAX_SCANS {
        return Err(format!("a JPEG with {scans} scans; up to {MAX_SCANS} are read; save it again"));
    }
    let (cut, mut samples) = (Cell::new(false), None);
    let source = Whole { bytes, given: false, cut: &cut };
    // The library turns an error of libjpeg into a panic, which leaves libjpeg's functions by unwinding.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode(source, header, &mut samples)));
    let damaged = |thrown: Option<Box<dyn Any + Send>>| {
        let said = thrown.as_ref().and_then(|said| said.downcast_ref::<String>());
        let said = said.map_or("libjpeg cannot read it", |said| said.trim_start_matches("libjpeg fatal error: "));
        format!("the image is damaged ({said})")
    };
    match (decoded, samples) {
        // All rows were there; only the end-of-image marker may be missing then.
        (_, Some(samples)) if cut.get() => Ok(rgb(samples, header)),
        (Ok(Ok(())), Some(samples)) => Ok(rgb(samples, header)),
        _ if cut.get() => Err("the image is cut short: the decoder needs more than the file has".to_owned()),
        (Err(thrown), _) => Err(damaged(Some(thrown))),
        (Ok(_), _) => Err(damaged(None)),
    }
}

/// Decodes all rows, then reads on to the end-of-image marker.
fn decode(source: Whole, header: Header, samples: &mut Option<Vec<u8>>) -> io::Result<()> {
    let decoder = Decompress::new_reader(source)?;
    let size = (header.width as usize, header.height as usize);
    if decoder.size() != size || decoder.components().len() != usize::from(header.components) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let space = match header.components {
        1 => ColorSpace::JCS_GRAYSCALE,
        3 => ColorSpace::JCS_RGB,
        _ => ColorSpace::JCS_CMYK,
    };
    let mut decoder = decoder.to_colorspace(space)?;
    *samples = Some(decoder.read_scanlines()?);
    decoder.finish()
}

fn rgb(samples: Vec<u8>, header: Header) -> Rgb {
    let data = match header.components {
        1 => samples.into_iter().flat_map(|grey| [grey; 3]).collect(),
        3 => samples,
        _ => samples.chunks_exact(4).flat_map(rgb_of_inks).collect(),
    };
    Rgb { width: header.width as usize, height: header.height as usize, data }
}

/// Pillow's RGB of cyan, magenta, yellow and black. Pillow takes all inks as inverted, with an Adobe marker and without
/// one.
fn rgb_of_inks(inks: &[u8]) -> [u8; 3] {
    let paper = i32::from(inks[3]);
    std::array::from_fn(|i| {
        // This is Pillow's rounded division by 255.
        let product = i32::from(255 - inks[i]) * paper + 128;
        (paper - (((product >> 8) + product) >> 8)).clamp(0, 255) as u8
    })
}

/// All bytes of a file, as a source for the decoder. A decoder that asks for more bytes fails, as Pillow's does; the
/// library's own source would make up an end.
struct Whole<'a> {
    bytes: &'a [u8],
    given: bool,
    cut: &'a Cell<bool>,
}

impl Read for Whole<'_> {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl BufRead for Whole<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.given {
            self.cut.set(true);
            return Err(io::ErrorKind::Other.into());
        }
        self.given = true;
        Ok(self.bytes)
    }

    fn consume(&mut self, _count: usize) {}
}
