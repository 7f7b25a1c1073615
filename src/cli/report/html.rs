//! Pieces of the page: texts and images inside of HTML.

use base64::{Engine, engine::general_purpose::STANDARD};
use image::{RgbImage, imageops};

use crate::image::{Rgb, jpeg};

/// The longest side of an image on the page.
const SIDE: u32 = 320;

/// Text for HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A small JPEG as a `data:` address.
pub(super) fn data_address(image: &Rgb) -> String {
    let (width, height) = (image.width as u32, image.height as u32);
    let Some(whole) = RgbImage::from_raw(width, height, image.data.clone()) else { return String::new() };
    // Strips of frames are wide, and stay so.
    let share = f64::from(SIDE) / f64::from(height.max(width.min(3 * height)));
    let size = |length: u32| ((f64::from(length) * share.min(1.0)).round() as u32).max(1);
    let small = imageops::resize(&whole, size(width), size(height), imageops::FilterType::Triangle);
    let small = Rgb { width: small.width() as usize, height: small.height() as usize, data: small.into_raw() };
    format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg(&small, 85)))
}
