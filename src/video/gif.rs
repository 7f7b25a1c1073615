//! GIFs, each frame as it is shown: drawn over the frames before it.

use std::{fs::File, io::BufReader, path::Path, time::Duration};

use image::{AnimationDecoder, Frame, ImageDecoder, codecs::gif::GifDecoder};

use super::{FrameRule, Frames, check_frame, distinct, frame_numbers, repeated};
use crate::{
    Error,
    image::{Rgb, limits},
};

/// The largest number of pixels that are drawn of all frames together: a thousand frames of full HD.
const MAX_DRAWN: u64 = 2_200_000_000;

/// Reads the frames that `wanted` names in two passes: one to count, one for the wanted frames.
pub(super) fn read(path: &Path, wanted: FrameRule) -> Result<Frames, Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let (mut drawn, mut now) = (0, Duration::ZERO);
    // The time at which each frame is shown.
    let mut times = Vec::new();
    for frame in frames(path)? {
        match frame {
            Ok(frame) => {
                times.push(now);
                now += Duration::from(frame.delay());
                drawn += u64::from(frame.buffer().width()) * u64::from(frame.buffer().height());
                if drawn > MAX_DRAWN {
                    let reason =
                        "the GIF has too many large frames to be read in a reasonable time; make it a video (.mp4)";
                    return Err(fail(reason.to_owned()));
                }
            }
            // The frames before the damage still are a video.
            Err(_) if !times.is_empty() => break,
            Err(_) => return Err(fail("the GIF is damaged".to_owned())),
        }
    }
    let count = times.len();
    let numbers = frame_numbers(count, wanted.of(count, Some(now.as_secs_f64())));
    let chosen = distinct(&numbers);
    let mut kept = Vec::with_capacity(chosen.len());
    for (number, frame) in frames(path)?.take(count).enumerate() {
        let frame = frame.map_err(|_| fail("the GIF is damaged".to_owned()))?;
        if chosen.binary_search(&number).is_ok() {
            kept.push(opaque(&frame));
        }
    }
    let times = numbers.iter().map(|number| times[*number]).collect();
    let frames = repeated(&numbers, kept);
    Ok(Frames { numbers, frames, times, seconds: Some(now.as_secs_f64()) })
}

fn frames(path: &Path) -> Result<image::Frames<'static>, Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let file = File::open(path).map_err(Error::io(path, "the video cannot be read"))?;
    let mut decoder = GifDecoder::new(BufReader::new(file)).map_err(|_| fail("not a GIF, or damaged".to_owned()))?;
    // Frames can be larger than the size that the file declares.
    let (width, height) = decoder.dimensions();
    check_frame(path, width.into(), height.into())?;
    decoder.set_limits(limits()).map_err(|_| fail("the GIF has frames that are larger than it is".to_owned()))?;
    Ok(decoder.into_frames())
}

/// The frame with white pixels where nothing was drawn, as ffmpeg has it for GIFs with transparent pixels. In other
/// GIFs that leave pixels out, which is rare, ffmpeg takes the palette's background colour.
fn opaque(frame: &Frame) -> Rgb {
    let image = frame.buffer();
    let pixel = |pixel: &image::Rgba<u8>| match pixel.0 {
        [_, _, _, 0] => [255; 3],
        [red, green, blue, _] => [red, green, blue],
    };
    let data = image.pixels().flat_map(pixel).collect();
    Rgb { width: image.width() as usize, height: image.height() as usize, data }
}
