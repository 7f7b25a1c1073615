//! `CLIPImageProcessor`: resize, crop, rescale, normalise, with LLaVA's padding before it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{
    Rgb,
    resize::{Canvas, resize},
};
use crate::{Error, files::read_json};

/// The settings of the image processor alone.
const PREPROCESSOR: &str = "preprocessor_config.json";
/// The settings of all processors of a model.
const PROCESSOR: &str = "processor_config.json";
/// The mean of OpenAI's training images, a number for each channel.
pub(super) const MEAN: [f64; 3] = [0.481_454_66, 0.457_827_5, 0.408_210_73];
/// The standard deviation of OpenAI's training images, a number for each channel.
pub(super) const STD: [f64; 3] = [0.268_629_54, 0.261_302_58, 0.275_777_11];
/// The largest side that is accepted, longer than any tower reads.
const MAX_SIDE: usize = 16_384;

/// The treatment of an image that is not square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// The image is padded to a square with the mean colour (`image_aspect_ratio: pad`).
    Pad,
    /// The centre of the image is cut out.
    Crop,
}

/// The settings of a `preprocessor_config.json`, checked.
#[derive(Clone, Debug)]
pub struct ClipProcessor {
    /// The side of the square that the tower reads.
    pub size: usize,
    /// The per-channel mean, of pixels in 0..1.
    pub mean: [f32; 3],
    /// The per-channel standard deviation.
    pub std: [f32; 3],
    /// The mean as it is written, in full precision: the padding colour comes from it.
    mean_f64: [f64; 3],
    rescale: f64,
    /// Whether images are scaled as floats, without antialias, as in LanguageBind.
    smooth: bool,
}

/// The file as it is written: sizes are numbers in old files, maps in newer ones.
#[derive(Deserialize)]
struct RawProcessor {
    size: RawSize,
    crop_size: RawSize,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    resample: Option<i64>,
    rescale_factor: Option<f64>,
    do_resize: Option<bool>,
    do_center_crop: Option<bool>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

/// The file in which transformers 5 keeps the settings of all of a model's processors.
#[derive(Deserialize)]
struct RawWhole {
    image_processor: Option<RawProcessor>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawSize {
    Side(usize),
    Shortest { shortest_edge: usize },
    Box { height: usize, width: usize },
}

impl RawSize {
    fn side(&self) -> Option<usize> {
        match *self {
            Self::Side(side) | Self::Shortest { shortest_edge: side } => Some(side),
            Self::Box { height, width } => (height == width).then_some(height),
        }
    }
}

impl RawProcessor {
    fn check(self, path: &Path) -> Result<ClipProcessor, Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        for (field, value) in [
            ("do_resize", self.do_resize),
            ("do_center_crop", self.do_center_crop),
            ("do_rescale", self.do_rescale),
            ("do_normalize", self.do_normalize),
        ] {
            if value == Some(false) {
                return refuse(format!("{field} is false; CLIP's processor does all four steps"));
            }
        }
        if let Some(resample) = self.resample.filter(|resample| *resample != bicubic()) {
            return refuse(format!("resample is {resample}; {} is known, the bicubic one", bicubic()));
        }
        let (Some(size), Some(crop)) = (self.size.side(), self.crop_size.side()) else {
            return refuse("size or crop_size is no square; one side for both is expected".to_owned());
        };
        if size != crop || !(1..=MAX_SIDE).contains(&size) {
            return refuse(format!(
                "size is {size} and crop_size {crop}; one side for both is expected, from 1 to {MAX_SIDE}"
            ));
        }
        let rescale = self.rescale_factor.unwrap_or_else(one_of_255);
        // The check is for f32, in which pixels are computed.
        let is_normal = |number: f64| number > 0.0 && (number as f32).is_normal();
        if !is_normal(rescale) {
            return refuse(format!("rescale_factor is {rescale:e}; a number above 0 is expected, such as 1/255"));
        }
        if let Some(std) = self.image_std.iter().find(|std| !is_normal(**std)) {
            return refuse(format!("image_std has {std:e}; numbers above 0 are expected"));
        }
        if let Some(mean) = self.image_mean.iter().find(|mean| !(0.0..=1.0).contains(*mean)) {
            return refuse(format!("image_mean has {mean}; numbers from 0 to 1 are expected"));
        }
        Ok(ClipProcessor { rescale, ..ClipProcessor::new(size, self.image_mean, self.image_std, false) })
    }
}

/// PIL's number for bicubic resizing.
fn bicubic() -> i64 {
    3
}

fn one_of_255() -> f64 {
    1.0 / 255.0
}

impl ClipProcessor {
    /// Reads the settings of a checkpoint's folder: `preprocessor_config.json`, or, as transformers 5 saves them, the
    /// field `image_processor` of `processor_config.json`.
    ///
    /// # Errors
    /// When the file is missing or asks for something other than a bicubic resize, a centred square, and
    /// normalisation.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        const ACTION: &str = "the image processor's settings cannot be read";
        let path = Self::file(folder);
        let raw: RawProcessor = if path.ends_with(PROCESSOR) {
            let RawWhole { image_processor } = read_json(&path, ACTION)?;
            image_processor.ok_or_else(|| {
                let reason =
                    format!("the field `image_processor` is missing, and there is no {PREPROCESSOR} beside it");
                Error::config(&path, reason)
            })?
        } else if !path.is_file() {
            let reason = format!("there is no {PREPROCESSOR} and no {PROCESSOR} in this folder");
            return Err(Error::config(folder, reason));
        } else {
            read_json(&path, ACTION)?
        };
        raw.check(&path)
    }

    /// The file in a folder that the settings are read from.
    pub fn file(folder: &Path) -> PathBuf {
        let (old, new) = (folder.join(PREPROCESSOR), folder.join(PROCESSOR));
        if !old.is_file() && new.is_file() { new } else { old }
    }

    /// OpenAI's settings for images with a side of `size` pixels.
    pub fn openai(size: usize) -> Self {
        Self::new(size, MEAN, STD, false)
    }

    /// CLIP's processor with a mean and a deviation of its own, both from 0 to 1 for each channel.
    pub fn clip(size: usize, mean: [f64; 3], std: [f64; 3]) -> Self {
        Self::new(size, mean, std, false)
    }

    pub(super) fn new(size: usize, mean: [f64; 3], std: [f64; 3], smooth: bool) -> Self {
        let (mean_f32, std) = (mean.map(|v| v as f32), std.map(|v| v as f32));
        Self { size, mean: mean_f32, std, mean_f64: mean, rescale: one_of_255(), smooth }
    }

    /// The colour of LLaVA's padding.
    pub(super) fn padding(&self) -> [u8; 3] {
        self.mean_f64.map(|mean| (mean * 255.0) as u8)
    }

    /// The image as the 8-bit square that PIL makes.
    pub fn square(&self, image: &Rgb, aspect: Aspect) -> Rgb {
        self.square_of(image, aspect, self.size)
    }

    /// The part of the image that the tower sees, as an 8-bit square of `side` pixels; a larger one is for people.
    pub fn square_of(&self, image: &Rgb, aspect: Aspect, side: usize) -> Rgb {
        match aspect {
            Aspect::Pad => resize(&Canvas::square(image, self.padding()), (side, side), 0..side, 0..side),
            Aspect::Crop => {
                let scaled = |long: usize, short: usize| (side as f64 * long as f64 / short as f64) as usize;
                let (width, height) = if image.width <= image.height {
                    (side, scaled(image.height, image.width))
                } else {
                    (scaled(image.width, image.height), side)
                };
                let (left, top) = ((width - side) / 2, (height - side) / 2);
                resize(&Canvas::plain(image), (width, height), left..left + side, top..top + side)
            }
        }
    }

    /// The normalised pixels of one crop, `[3, size, size]` in row-major order.
    pub fn pixels(&self, image: &Rgb, aspect: Aspect) -> Vec<f32> {
        if self.smooth { self.smooth_pixels(image, aspect) } else { self.normalise(&self.square(image, aspect)) }
    }

    /// The pixels rescaled and normalised, channel by channel: `[3, height, width]`.
    pub fn normalise(&self, square: &Rgb) -> Vec<f32> {
        let levels: [[f32; 256]; 3] = std::array::from_fn(|channel| {
            std::array::from_fn(|level| {
                let scaled = (level as f64 * self.rescale) as f32;
                (scaled - self.mean[channel]) / self.std[channel]
            })
        });
        (0..3)
            .flat_map(|channel| {
                let levels = &levels[channel];
                square.data.iter().skip(channel).step_by(3).map(move |&level| levels[usize::from(level)])
            })
            .collect()
    }
}
