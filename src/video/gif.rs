//! GIFs, each frame as it is shown: drawn over those before it.

use std::{fs::File, io::BufReader, path::Path};

use image::{AnimationDecoder, Frame, ImageDecoder, codecs::gif::GifDecoder};

use super::{distinct, frame_numbers, repeated};
use crate::{
    Error,
    image::{MAX_PIXELS, Rgb, limits},
};

/// Two passes: one to count, one for the wanted frames.
pub(super) fn read(path: &Path, wanted: usize) -> Result<(Vec<usize>, Vec<Rgb>), Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let mut count = 0;
    for frame in frames(path)? {
        match frame {
            Ok(_) => count += 1,
            // What was shown before the damage is a video still.
            Err(_) if count > 0 => break,
            Err(error) => return Err(fail(format!("the GIF is damaged: {error}"))),
        }
    }
    let numbers = frame_numbers(count, wanted);
    let chosen = distinct(&numbers);
    let mut kept = Vec::with_capacity(chosen.len());
    for (number, frame) in frames(path)?.take(count).enumerate() {
        let frame = frame.map_err(|error| fail(format!("the GIF is damaged: {error}")))?;
        if chosen.binary_search(&number).is_ok() {
            kept.push(opaque(&frame));
        }
    }
    Ok((numbers.clone(), repeated(&numbers, &kept)))
}

fn frames(path: &Path) -> Result<image::Frames<'static>, Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let file = File::open(path).map_err(Error::io(path, "the video cannot be read"))?;
    let mut decoder = GifDecoder::new(BufReader::new(file)).map_err(|error| fail(format!("not a GIF: {error}")))?;
    // Frames can be larger than the size that the file declares.
    decoder.set_limits(limits()).map_err(|error| fail(format!("the GIF cannot be read: {error}")))?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS || width == 0 || height == 0 {
        return Err(fail(format!("{width}×{height} pixels cannot be read; up to {MAX_PIXELS} in all are")));
    }
    Ok(decoder.into_frames())
}

/// Where nothing was drawn, white, as ffmpeg has it for GIFs with transparent pixels; in others that leave pixels out, which is rare,
/// it takes the palette's background colour.
fn opaque(frame: &Frame) -> Rgb {
    let picture = frame.buffer();
    let pixel = |pixel: &image::Rgba<u8>| match pixel.0 {
        [_, _, _, 0] => [255; 3],
        [red, green, blue, _] => [red, green, blue],
    };
    let data = picture.pixels().flat_map(pixel).collect();
    Rgb { width: picture.width() as usize, height: picture.height() as usize, data }
}
