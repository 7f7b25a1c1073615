//! `Qwen2VLImageProcessorFast`: an image at nearly its own size, cut into patches that a tower merges two by two.

use std::path::Path;

use serde::Deserialize;

use super::{
    Rgb,
    clip::{MEAN, STD},
    resize::resize_as_torch,
};
use crate::{Error, files::read_json};

/// The file with the settings for images, and for videos unless these have a file of their own.
const IMAGES: &str = "preprocessor_config.json";
/// The file with the settings for videos.
const VIDEOS: &str = "video_preprocessor_config.json";
/// The largest ratio of an image's sides.
const MAX_RATIO: f64 = 200.0;
/// A limit on the pixels of a resized image, above that of any model.
const MAX_PIXELS: usize = 1 << 28;

/// The limits of the number of pixels that an image is resized to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixelLimits {
    /// The smallest number (`min_pixels`).
    pub least: usize,
    /// The largest number (`max_pixels`).
    pub most: usize,
}

/// The settings of the image processor, checked.
#[derive(Clone, Debug)]
pub struct DynamicProcessor {
    /// The side of a patch in pixels.
    pub patch: usize,
    /// The number of patches a side that become one token.
    pub merge: usize,
    /// The number of frames that a patch covers.
    pub frames: usize,
    /// The limits for images.
    pub images: PixelLimits,
    /// The limits for each frame of a video.
    pub videos: PixelLimits,
    /// The mean of each channel, of pixels in 0..1.
    pub mean: [f64; 3],
    /// The standard deviation of each channel.
    pub std: [f64; 3],
    /// The value of each 8-bit level, for each channel.
    levels: Box<[[f32; 256]; 3]>,
}

/// The file as it is written.
#[derive(Deserialize)]
struct RawProcessor {
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    size: Option<RawSize>,
    patch_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    merge_size: Option<usize>,
    image_mean: Option<[f64; 3]>,
    image_std: Option<[f64; 3]>,
    rescale_factor: Option<f64>,
    resample: Option<i64>,
    do_resize: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

#[derive(Deserialize)]
struct RawSize {
    // Older files name the limits so.
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    shortest_edge: Option<usize>,
    longest_edge: Option<usize>,
}

/// The file in which transformers 5 keeps the settings of all of a model's processors.
#[derive(Deserialize)]
struct RawWhole {
    image_processor: Option<RawProcessor>,
    video_processor: Option<RawProcessor>,
}

impl RawProcessor {
    /// The limits in the file, or `usual` ones.
    fn limits(&self, usual: PixelLimits, path: &Path) -> Result<PixelLimits, Error> {
        let size = self.size.as_ref();
        let least = self.min_pixels.or_else(|| size.and_then(|size| size.shortest_edge.or(size.min_pixels)));
        let most = self.max_pixels.or_else(|| size.and_then(|size| size.longest_edge.or(size.max_pixels)));
        let limits = PixelLimits { least: least.unwrap_or(usual.least), most: most.unwrap_or(usual.most) };
        limits.check().map_err(|reason| Error::config(path, reason))
    }
}

impl PixelLimits {
    /// The limits themselves, where images can be resized to them.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them.
    pub fn check(self) -> Result<Self, String> {
        let Self { least, most } = self;
        if (1..=MAX_PIXELS).contains(&most) && least <= most {
            return Ok(self);
        }
        Err(format!(
            "min_pixels is {least} and max_pixels {most}; expected the first at most as large, the second from 1 to {MAX_PIXELS}"
        ))
    }
}

impl DynamicProcessor {
    /// Reads the settings in a folder.
    ///
    /// # Errors
    /// When the file is missing or asks for something other than a bicubic resize and normalisation.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        const ACTION: &str = "the image processor's settings cannot be read";
        let (old, new) = (folder.join(IMAGES), folder.join("processor_config.json"));
        let whole = || read_json::<RawWhole>(&new, ACTION);
        let (path, images) = if old.is_file() || !new.is_file() {
            let raw: RawProcessor = read_json(&old, ACTION)?;
            (old, raw)
        } else {
            let missing = || Error::config(&new, "the field `image_processor` is missing");
            let raw = whole()?.image_processor.ok_or_else(missing)?;
            (new.clone(), raw)
        };
        let mut processor = images.check(&path)?;
        let own = folder.join(VIDEOS);
        // Limits for videos that are written nowhere are others than those for images.
        let usual = PixelLimits { least: 128 * 28 * 28, most: 768 * 28 * 28 };
        let (videos, path) = if own.is_file() {
            (Some(read_json::<RawProcessor>(&own, ACTION)?), own)
        } else if path == new {
            (whole()?.video_processor, new)
        } else {
            (Some(images), path)
        };
        if let Some(videos) = videos {
            processor.videos = videos.limits(usual, &path)?;
        }
        Ok(processor)
    }

    /// The settings of the published models, whose images may have `most` pixels.
    pub fn published(most: usize) -> Self {
        Self::new(14, 2, PixelLimits { least: 56 * 56, most }, MEAN, STD)
    }

    /// Settings with the same limits for images and for the frames of videos, of which a patch covers two.
    pub fn new(patch: usize, merge: usize, limits: PixelLimits, mean: [f64; 3], std: [f64; 3]) -> Self {
        let levels = levels(mean, std, 1.0 / 255.0);
        Self { patch, merge, frames: 2, images: limits, videos: limits, mean, std, levels }
    }

    /// The side in pixels of a token.
    pub fn token(&self) -> usize {
        self.patch * self.merge
    }

    /// The width and height that an image of `size` is resized to: `smart_resize`.
    ///
    /// # Errors
    /// When one side is more than 200 times as long as the other.
    pub fn size(&self, (width, height): (usize, usize), limits: PixelLimits) -> Result<(usize, usize), Error> {
        let (w, h, unit) = (width as f64, height as f64, self.token() as f64);
        if w.max(h) / w.min(h) > MAX_RATIO {
            return Err(Error::Ratio { width, height, most: MAX_RATIO as usize });
        }
        let whole = |side: f64, round: fn(f64) -> f64| round(side / unit) * unit;
        // Python's `round` takes halves to the even number.
        let (mut across, mut down) = (whole(w, f64::round_ties_even), whole(h, f64::round_ties_even));
        if across * down > limits.most as f64 {
            let scale = (h * w / limits.most as f64).sqrt();
            // Each side is divided before it is counted in units, as in Python's `height / beta / factor`.
            let fit = |side: f64| (side / scale / unit).floor() * unit;
            (across, down) = (fit(w).max(unit), fit(h).max(unit));
        } else if across * down < limits.least as f64 {
            let scale = (limits.least as f64 / (h * w)).sqrt();
            let fill = |side: f64| (side * scale / unit).ceil() * unit;
            (across, down) = (fill(w), fill(h));
        }
        Ok((across as usize, down as usize))
    }

    /// The image at the size that the tower reads.
    ///
    /// # Errors
    /// As [`Self::size`].
    pub fn resized(&self, image: &Rgb, limits: PixelLimits) -> Result<Rgb, Error> {
        Ok(resize_as_torch(image, self.size((image.width, image.height), limits)?))
    }

    /// The normalised pixels of frames of one size, [`Self::frames`] for each slice of time: `[slices, patches, 3 · frames · patch · patch]`. The patches
    /// that become one token stand one after another.
    pub fn patches(&self, frames: &[&Rgb]) -> Vec<f32> {
        let Some(first) = frames.first() else { return Vec::new() };
        let (token, side) = (self.token(), self.patch);
        let (columns, rows) = (first.width / token, first.height / token);
        let mut all = Vec::with_capacity(frames.len() * 3 * first.width * first.height);
        for slice in frames.chunks(self.frames) {
            for unit in 0..rows * columns {
                for part in 0..self.merge * self.merge {
                    let top = unit / columns * token + part / self.merge * side;
                    let left = unit % columns * token + part % self.merge * side;
                    for (channel, levels) in self.levels.iter().enumerate() {
                        for frame in slice {
                            for y in top..top + side {
                                let row = &frame.data[3 * (y * frame.width + left)..][..3 * side];
                                let values = row.iter().skip(channel).step_by(3);
                                all.extend(values.map(|level| levels[usize::from(*level)]));
                            }
                        }
                    }
                }
            }
        }
        all
    }
}

impl RawProcessor {
    fn check(&self, path: &Path) -> Result<DynamicProcessor, Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        for (field, value) in
            [("do_resize", self.do_resize), ("do_rescale", self.do_rescale), ("do_normalize", self.do_normalize)]
        {
            if value == Some(false) {
                return refuse(format!("{field} is false; the processor of Qwen2-VL does all three steps"));
            }
        }
        if let Some(resample) = self.resample.filter(|resample| *resample != 3) {
            return refuse(format!("resample is {resample}; 3 is known, the bicubic one"));
        }
        let size = |field: &str, value: Option<usize>, usual: usize| match value.unwrap_or(usual) {
            value @ 1..=256 => Ok(value),
            value => Err(Error::config(path, format!("{field} is {value}; 1 to 256 are possible"))),
        };
        let (mean, std) = (self.image_mean.unwrap_or(MEAN), self.image_std.unwrap_or(STD));
        let rescale = self.rescale_factor.unwrap_or(1.0 / 255.0);
        let positive = |value: f64| value.is_finite() && (value as f32) > 0.0;
        if !(mean.iter().all(|value| value.is_finite())
            && std.iter().all(|value| positive(*value))
            && positive(rescale))
        {
            return refuse(format!(
                "image_mean {mean:?}, image_std {std:?} or rescale_factor {rescale} cannot scale pixels"
            ));
        }
        let limits = self.limits(PixelLimits { least: 56 * 56, most: 28 * 28 * 1280 }, path)?;
        Ok(DynamicProcessor {
            patch: size("patch_size", self.patch_size, 14)?,
            merge: size("merge_size", self.merge_size, 2)?,
            frames: size("temporal_patch_size", self.temporal_patch_size, 2)?,
            images: limits,
            videos: PixelLimits { least: 128 * 28 * 28, most: 768 * 28 * 28 },
            mean,
            std,
            levels: levels(mean, std, rescale),
        })
    }
}

/// The value of each 8-bit level, for each channel. The fast processor divides mean and deviation by `rescale` once, in f32, and does not scale pixels.
fn levels(mean: [f64; 3], std: [f64; 3], rescale: f64) -> Box<[[f32; 256]; 3]> {
    let scaled = |value: f64| value as f32 * (1.0 / rescale) as f32;
    Box::new(std::array::from_fn(|channel| {
        std::array::from_fn(|level| (level as f32 - scaled(mean[channel])) / scaled(std[channel]))
    }))
}
