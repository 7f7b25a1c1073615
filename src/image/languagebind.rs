//! The pixels for LanguageBind's towers, as the processors in Video-LLaVA's
//! `llava/model/multimodal_encoder/languagebind` make them: pixels are floats before they are scaled, and scaling has
//! no antialias. A video's frames are normalised first and scaled bilinearly; images are scaled bicubically and then
//! normalised.
//!
//! Official inference also mirrors every second video at random (`RandomHorizontalFlipVideo` is left in); here no video
//! is mirrored.

use super::{
    Aspect, ClipProcessor, Rgb,
    clip::{MEAN, STD},
    interpolate::{Kernel, interpolate},
};

impl ClipProcessor {
    /// The settings that LanguageBind has in its code, for images with a side of `size` pixels.
    pub fn languagebind(size: usize) -> Self {
        Self::new(size, MEAN, STD, true)
    }

    /// The normalised pixels of a video's frame, `[3, size, size]`: the short side is scaled to `size`, and the centre
    /// is cut out.
    pub fn frame_pixels(&self, frame: &Rgb) -> Vec<f32> {
        let pixel =
            |channel: usize, x: usize, y: usize| (level(frame, channel, x, y) - self.mean[channel]) / self.std[channel];
        // The result is floored, and the order of operations is the official one.
        let scaled = |long: usize, short: usize| (long as f64 / short as f64 * self.size as f64) as usize;
        self.centre(pixel, (frame.width, frame.height), scaled, Kernel::Bilinear)
    }

    /// The normalised pixels of an image, `[3, size, size]`.
    pub(super) fn smooth_pixels(&self, image: &Rgb, aspect: Aspect) -> Vec<f32> {
        let scaled = |long: usize, short: usize| (self.size as f64 * long as f64 / short as f64) as usize;
        let mut pixels = match aspect {
            Aspect::Crop => {
                let pixel = |channel: usize, x: usize, y: usize| level(image, channel, x, y);
                self.centre(pixel, (image.width, image.height), scaled, Kernel::Bicubic)
            }
            Aspect::Pad => {
                let side = image.width.max(image.height);
                let (left, top) = ((side - image.width) / 2, (side - image.height) / 2);
                let colour = self.padding().map(|level| f32::from(level) / 255.0);
                let pixel = |channel: usize, x: usize, y: usize| match (x.checked_sub(left), y.checked_sub(top)) {
                    (Some(x), Some(y)) if x < image.width && y < image.height => level(image, channel, x, y),
                    _ => colour[channel],
                };
                self.centre(pixel, (side, side), scaled, Kernel::Bicubic)
            }
        };
        let plane = self.size * self.size;
        for (i, pixel) in pixels.iter_mut().enumerate() {
            *pixel = (*pixel - self.mean[i / plane]) / self.std[i / plane];
        }
        pixels
    }

    /// The centre of an image of size `from` (width, height), whose short side is scaled to `size` and whose long side
    /// is scaled to `scaled(long, short)`.
    fn centre(
        &self,
        pixel: impl Fn(usize, usize, usize) -> f32,
        from: (usize, usize),
        scaled: impl Fn(usize, usize) -> usize,
        kernel: Kernel,
    ) -> Vec<f32> {
        let to =
            if from.0 < from.1 { (self.size, scaled(from.1, from.0)) } else { (scaled(from.0, from.1), self.size) };
        // Python rounds halves to even.
        let offset = |side: usize| ((side - self.size) as f64 / 2.0).round_ties_even() as usize;
        let (left, top) = (offset(to.0), offset(to.1));
        interpolate(pixel, from, to, left..left + self.size, top..top + self.size, kernel)
    }
}

/// The level of a channel at a place, from 0 to 1.
fn level(image: &Rgb, channel: usize, x: usize, y: usize) -> f32 {
    f32::from(image.data[(y * image.width + x) * 3 + channel]) / 255.0
}
