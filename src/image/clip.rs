//! `CLIPImageProcessor`: resize, crop, rescale, normalise, with LLaVA's padding before it.

use std::path::Path;

use serde::Deserialize;

use super::{
    Rgb,
    resize::{Canvas, resize},
};
use crate::Error;

/// What becomes of a picture that is not square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aspect {
    /// Padded to a square with the mean colour (`image_aspect_ratio: pad`).
    Pad,
    /// Its centre is cut out.
    Crop,
}

/// The settings of a `preprocessor_config.json`, checked.
#[derive(Clone, Debug)]
pub struct ClipProcessor {
    /// The side of the square that the tower reads.
    pub size: usize,
    /// Per-channel mean, of pixels in 0..1.
    pub mean: [f32; 3],
    /// Per-channel standard deviation.
    pub std: [f32; 3],
    /// The mean as it is written, in full precision: the padding colour comes from it.
    mean_f64: [f64; 3],
    rescale: f64,
    /// Whether pictures are scaled as floats, without antialias: LanguageBind.
    smooth: bool,
}

/// The file as it is written: sizes are numbers in old files, maps in newer ones.
#[derive(Deserialize)]
struct RawProcessor {
    size: RawSize,
    crop_size: RawSize,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    #[serde(default = "bicubic")]
    resample: u32,
    #[serde(default = "one_of_255")]
    rescale_factor: f64,
    #[serde(default = "yes")]
    do_resize: bool,
    #[serde(default = "yes")]
    do_center_crop: bool,
    #[serde(default = "yes")]
    do_rescale: bool,
    #[serde(default = "yes")]
    do_normalize: bool,
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

fn yes() -> bool {
    true
}

/// PIL's number for bicubic.
fn bicubic() -> u32 {
    3
}

fn one_of_255() -> f64 {
    1.0 / 255.0
}

impl ClipProcessor {
    /// Reads `preprocessor_config.json`.
    ///
    /// # Errors
    /// When the file is missing or asks for something other than a bicubic resize, a centred square, and
    /// normalisation.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(Error::io(path, "the preprocessor's settings cannot be read"))?;
        let raw: RawProcessor = serde_json::from_str(&text).map_err(|e| Error::config(path, e.to_string()))?;
        let steps = raw.do_resize && raw.do_center_crop && raw.do_rescale && raw.do_normalize;
        match (raw.size.side(), raw.crop_size.side()) {
            (Some(size), Some(crop)) if size == crop && size > 0 && steps && raw.resample == bicubic() => {
                Ok(Self { rescale: raw.rescale_factor, ..Self::new(size, raw.image_mean, raw.image_std, false) })
            }
            _ => Err(Error::config(
                path,
                "expected a bicubic resize (resample 3) and a centred square crop of one size, rescaled and \
                 normalised, as CLIP's processor does",
            )),
        }
    }

    pub(super) fn new(size: usize, mean: [f64; 3], std: [f64; 3], smooth: bool) -> Self {
        let (mean_f32, std) = (mean.map(|v| v as f32), std.map(|v| v as f32));
        Self { size, mean: mean_f32, std, mean_f64: mean, rescale: one_of_255(), smooth }
    }

    /// The colour of LLaVA's padding.
    pub(super) fn padding(&self) -> [u8; 3] {
        self.mean_f64.map(|mean| (mean * 255.0) as u8)
    }

    /// The picture as the 8-bit square that PIL makes.
    pub fn square(&self, picture: &Rgb, aspect: Aspect) -> Rgb {
        self.square_of(picture, aspect, self.size)
    }

    /// The same part of the picture with `side` pixels a side: larger, it shows to people what the tower sees.
    pub fn square_of(&self, picture: &Rgb, aspect: Aspect, side: usize) -> Rgb {
        match aspect {
            Aspect::Pad => resize(&Canvas::square(picture, self.padding()), (side, side), 0..side, 0..side),
            Aspect::Crop => {
                let scaled = |long: usize, short: usize| (side as f64 * long as f64 / short as f64) as usize;
                let (width, height) = if picture.width <= picture.height {
                    (side, scaled(picture.height, picture.width))
                } else {
                    (scaled(picture.width, picture.height), side)
                };
                let (left, top) = ((width - side) / 2, (height - side) / 2);
                resize(&Canvas::plain(picture), (width, height), left..left + side, top..top + side)
            }
        }
    }

    /// The normalised pixels of one crop, `[3, size, size]` in row-major order.
    pub fn pixels(&self, picture: &Rgb, aspect: Aspect) -> Vec<f32> {
        if self.smooth { self.smooth_pixels(picture, aspect) } else { self.normalise(&self.square(picture, aspect)) }
    }

    /// Channel by channel, rescaled and normalised: `[3, height, width]`.
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
