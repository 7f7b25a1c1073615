//! Videos: which frames a model sees, and where they come from.
//!
//! A folder of images and a GIF are read here, anything else by the `ffmpeg` program.

mod ffmpeg;
mod folder;
mod gif;

use std::{
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use secateur_weights::impostor;
use sha2::{Digest, Sha256};

use crate::{
    Error,
    files::check_regular,
    image::{Rgb, decode_upright, looks_like_an_image},
};

/// The frames of a video that a model sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Video {
    /// The path of the video.
    pub path: PathBuf,
    /// The wanted number of frames, all of one size.
    pub frames: Vec<Rgb>,
    /// The numbers of these frames in the video, from 0.
    pub numbers: Vec<usize>,
    /// The time of each frame from the start; empty where the video has no times, as a folder of frames.
    pub times: Vec<Duration>,
    /// The number of these frames that pass in a second; `None` where that is not known.
    pub rate: Option<f64>,
}

/// The frames that a model takes of a video.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FrameRule {
    /// So many frames, spread over the whole video; each has a placeholder in a prompt.
    Count(usize),
    /// So many frames a second, an even number from 4 to 768; of a video without times, every frame up to 768. The whole video has one placeholder.
    Rate(f64),
}

impl FrameRule {
    /// The number of frames that are taken of `count`, which last so many `seconds`, where that is known.
    pub fn of(self, count: usize, seconds: Option<f64>) -> usize {
        const LEAST: usize = 4;
        const MOST: usize = 768;
        match (self, seconds) {
            (Self::Count(wanted), _) => wanted,
            (Self::Rate(_), None) => count.min(MOST),
            (Self::Rate(rate), Some(seconds)) => {
                // As `qwen_vl_utils` chooses it: even numbers, and no more frames than there are.
                let most = MOST.min(count / 2 * 2).max(LEAST.min(count));
                (((seconds * rate) as usize).clamp(LEAST.min(most), most) / 2 * 2).max(1)
            }
        }
    }

    /// The number of placeholders in a prompt of a video of so many frames.
    pub fn placeholders(self, frames: usize) -> usize {
        match self {
            Self::Count(_) => frames,
            Self::Rate(_) => 1,
        }
    }
}

/// Frames of a video as a reader finds them, with the fields of [`Video`].
struct Frames {
    numbers: Vec<usize>,
    frames: Vec<Rgb>,
    times: Vec<Duration>,
    /// The length of the whole video in seconds, where it is known.
    seconds: Option<f64>,
}

/// An image or a video, as a model reads it.
#[derive(Clone, Debug, PartialEq)]
pub enum Media {
    /// An image.
    Image(Rgb),
    /// A video.
    Video(Video),
}

impl From<Rgb> for Media {
    fn from(image: Rgb) -> Self {
        Self::Image(image)
    }
}

impl Media {
    /// Reads an image, or a video where `path` is a folder or has a video's extension. `frames` says which frames
    /// the model takes of a video; without it, a GIF is an image. An image is turned upright as its EXIF block
    /// says; also returns whether that turned it.
    ///
    /// # Errors
    /// As [`decode_upright`] and [`Video::read`], or when the model takes no video.
    pub fn read(path: &Path, frames: Option<FrameRule>) -> Result<(Self, bool), Error> {
        let video = |video| (Self::Video(video), false);
        match frames {
            Some(frames) if is_video(path) => Ok(video(Video::read(path, frames)?)),
            None if is_video(path) && !is_gif(path) => Err(Error::NoVideo { path: path.to_owned() }),
            None => decode_upright(path).map(|(image, turned)| (Self::Image(image), turned)),
            Some(frames) => match decode_upright(path) {
                // A file that ffmpeg reads as a video is a video, whatever its extension.
                Err(error @ Error::Image { .. }) if !looks_like_an_image(path) => {
                    Video::read(path, frames).map(video).map_err(|_| error)
                }
                image => image.map(|(image, turned)| (Self::Image(image), turned)),
            },
        }
    }

    /// The SHA-256 checksum of its pixels.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        let frames = match self {
            Self::Image(image) => std::slice::from_ref(image),
            Self::Video(video) => &video.frames,
        };
        let mut sum = Sha256::new();
        sum.update([u8::from(matches!(self, Self::Video(_)))]);
        for frame in frames {
            sum.update((frame.width as u64).to_le_bytes());
            sum.update((frame.height as u64).to_le_bytes());
            sum.update(&frame.data);
        }
        sum.finalize().into()
    }

    /// The number of placeholders for it in a prompt of a model that takes such frames.
    pub fn placeholders(&self, rule: Option<FrameRule>) -> usize {
        match (self, rule) {
            (Self::Image(_), _) => 1,
            (Self::Video(video), rule) => rule.map_or(1, |rule| rule.placeholders(video.frames.len())),
        }
    }
}

impl Video {
    /// Reads the frames that `wanted` names, spread over the whole video. A video with fewer frames has some of them twice, as in the
    /// official code.
    ///
    /// # Errors
    /// When there is no such file, it holds no video, is damaged, or `ffmpeg` is needed and not there.
    pub fn read(path: &Path, wanted: FrameRule) -> Result<Self, Error> {
        let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
        check_regular(path, "the video cannot be read")?;
        let meta = std::fs::metadata(path).map_err(Error::io(path, "the video cannot be read"))?;
        if meta.is_file() && meta.len() == 0 {
            return Err(fail("the file has 0 bytes, which is no video".to_owned()));
        }
        let mut start = Vec::new();
        if meta.is_file() {
            let file = std::fs::File::open(path).and_then(|file| file.take(512).read_to_end(&mut start));
            file.map_err(Error::io(path, "the video cannot be read"))?;
        }
        if let Some(impostor) = impostor(&start) {
            return Err(fail(impostor.to_owned()));
        }
        let frames = if meta.is_dir() {
            folder::read(path, wanted)?
        } else if is_gif(path) {
            gif::read(path, wanted)?
        } else {
            ffmpeg::read(path, wanted)?
        };
        Self::of(path, frames)
    }

    /// Reads the frames that `wanted` names of those in `files`, one image each.
    ///
    /// # Errors
    /// When a file is missing or no image, or frames differ in size.
    pub fn of_frames(files: &[PathBuf], wanted: FrameRule) -> Result<Self, Error> {
        Self::of(files.first().map_or(Path::new(""), |file| file), folder::of_files(files, wanted)?)
    }

    /// A video of frames that were found at `path`.
    fn of(path: &Path, Frames { numbers, frames, times, seconds }: Frames) -> Result<Self, Error> {
        let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
        let Some(first) = frames.first() else { return Err(fail("there is no frame in it".to_owned())) };
        if let Some(i) = frames.iter().position(|frame| (frame.width, frame.height) != (first.width, first.height)) {
            let (a, b) = (&frames[0], &frames[i]);
            return Err(fail(format!(
                "frame {} is {}×{} pixels and frame {} is {}×{}; the frames of a video have one size",
                numbers[0], a.width, a.height, numbers[i], b.width, b.height
            )));
        }
        let rate = seconds.filter(|seconds| *seconds > 0.0).map(|seconds| frames.len() as f64 / seconds);
        Ok(Self { path: path.to_owned(), frames, numbers, times, rate })
    }
}

/// The largest number of pixels in a video's frame; several frames are kept at a time. 8K has 33 million.
const MAX_FRAME: u64 = 40_000_000;

/// Refuses frames that are too large.
fn check_frame(path: &Path, width: u64, height: u64) -> Result<(), Error> {
    if width > 0 && height > 0 && width.saturating_mul(height) <= MAX_FRAME {
        return Ok(());
    }
    let reason = format!("frames of {width}×{height} pixels are not read; up to {MAX_FRAME} pixels are");
    Err(Error::Video { path: path.to_owned(), reason })
}

/// Checks that the video at `path` can be read, without decoding more of it than that takes.
///
/// # Errors
/// As [`Video::read`].
pub fn probe(path: &Path) -> Result<(), Error> {
    if needs_ffmpeg(path) { ffmpeg::probe(path) } else { Video::read(path, FrameRule::Count(1)).map(|_| ()) }
}

/// Whether the video at `path` is read by `ffmpeg`, and neither a folder nor a GIF.
pub fn needs_ffmpeg(path: &Path) -> bool {
    !path.is_dir() && !is_gif(path)
}

/// Checks that the programs for the video at `path` are on this machine.
///
/// # Errors
/// When `ffmpeg` is needed, and not there.
pub fn check_reader(path: &Path) -> Result<(), Error> {
    if needs_ffmpeg(path) { ffmpeg::check(path) } else { Ok(()) }
}

/// The numbers of `wanted` of `count` frames: `numpy.linspace(0, count − 1, wanted)` cut to whole numbers, as in the
/// official code; empty without frames.
pub fn frame_numbers(count: usize, wanted: usize) -> Vec<usize> {
    let Some(last) = count.checked_sub(1) else { return Vec::new() };
    let step = last as f64 / (wanted.max(2) - 1) as f64;
    // The last number is exact in numpy, whatever the step rounds to.
    (0..wanted).map(|i| if i > 0 && i + 1 == wanted { last } else { (i as f64 * step) as usize }).collect()
}

/// Extensions of videos; a file with another one is tried as an image.
const EXTENSIONS: [&str; 16] =
    ["mp4", "avi", "mov", "mkv", "webm", "gif", "m4v", "mpg", "mpeg", "wmv", "flv", "ts", "m2ts", "ogv", "3gp", "y4m"];

/// Whether `path` is a folder or has a video's extension.
pub fn is_video(path: &Path) -> bool {
    path.is_dir() || EXTENSIONS.iter().any(|known| has_extension(path, known))
}

fn is_gif(path: &Path) -> bool {
    has_extension(path, "gif")
}

fn has_extension(path: &Path, known: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(known))
}

/// The distinct numbers among `numbers`, in their order.
fn distinct(numbers: &[usize]) -> Vec<usize> {
    let mut distinct = numbers.to_vec();
    distinct.dedup();
    distinct
}

/// The frames of `numbers`, from the frames of its distinct numbers.
fn repeated(numbers: &[usize], frames: Vec<Rgb>) -> Vec<Rgb> {
    let mut frames = frames.into_iter();
    let mut all: Vec<Rgb> = Vec::with_capacity(numbers.len());
    for (i, number) in numbers.iter().enumerate() {
        // Frames of 8K video are 100 MB each: a frame is copied only if it is there twice.
        let again = if i > 0 && numbers[i - 1] == *number { all.last().cloned() } else { None };
        all.extend(again.or_else(|| frames.next()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_numbers_are_those_of_numpy() {
        for (count, expected) in [
            (1, [0; 8]),
            (2, [0, 0, 0, 0, 0, 0, 0, 1]),
            (8, [0, 1, 2, 3, 4, 5, 6, 7]),
            (20, [0, 2, 5, 8, 10, 13, 16, 19]),
        ] {
            assert_eq!(frame_numbers(count, 8), expected, "{count} frames");
        }
        assert!(frame_numbers(0, 8).is_empty());
        assert_eq!(frame_numbers(9, 1), [0]);
    }
}
