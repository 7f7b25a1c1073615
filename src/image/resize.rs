//! Bicubic resizing with antialias, bit for bit as `Image.resize(…, BICUBIC)` of Pillow 10.2, the version that LLaVA
//! pins, or as torch resizes 8-bit images, which is what transformers' fast processors do. (Pillow 13 resizes rows first for some shapes, such as 300×500, which gives up to 2 levels of 255 more or less.)
//!
//! Pillow 10.2 resizes columns first, rounds to 8 bits, then resizes rows, with weights of 22 fractional bits. A
//! program that reports kept tokens must start from the same pixels, so the rule is written out here:
//! `fast_image_resize` rounds its weights to 16 bits and differs from Pillow by up to 2 levels (measured on noise and
//! on smooth images).

use std::ops::Range;

use rayon::prelude::*;

use super::Rgb;

/// The number of fractional bits of Pillow's weights.
const PILLOW: u32 = 32 - 8 - 2;

/// The rule by which weights become whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fixed {
    /// Pillow's: always 22 fractional bits.
    Pillow,
    /// torch's: as many fractional bits as leave the largest weight of a direction in 16 bits.
    Torch,
}
/// The reach of the bicubic filter, in samples of the smaller image.
const SUPPORT: f64 = 2.0;

/// An image alone or in the middle of a uniform square. The padding is never written out, so that a 20,000×10 image
/// does not take 1.2 GB.
pub(super) struct Canvas<'a> {
    image: &'a Rgb,
    width: usize,
    height: usize,
    left: usize,
    top: usize,
    colour: [u8; 3],
}

impl<'a> Canvas<'a> {
    /// The image alone.
    pub(super) fn plain(image: &'a Rgb) -> Self {
        Self { image, width: image.width, height: image.height, left: 0, top: 0, colour: [0; 3] }
    }

    /// The image centred in a square of its longer side, as in LLaVA's `expand2square`.
    pub(super) fn square(image: &'a Rgb, colour: [u8; 3]) -> Self {
        let side = image.width.max(image.height);
        let (left, top) = ((side - image.width) / 2, (side - image.height) / 2);
        Self { image, width: side, height: side, left, top, colour }
    }

    /// The pixels of row `y`, without the padding beside them.
    fn row(&self, y: usize) -> &[u8] {
        let stride = 3 * self.image.width;
        &self.image.data[(y - self.top) * stride..][..stride]
    }
}

/// Resizes `canvas` to `size` (width, height) as Pillow does and returns the part of it in `columns` and `rows`.
pub(super) fn resize(canvas: &Canvas, size: (usize, usize), columns: Range<usize>, rows: Range<usize>) -> Rgb {
    resize_by(Fixed::Pillow, canvas, size, columns, rows)
}

/// Resizes a whole image to `size` (width, height) as torch does.
pub(super) fn resize_as_torch(image: &Rgb, size: (usize, usize)) -> Rgb {
    resize_by(Fixed::Torch, &Canvas::plain(image), size, 0..size.0, 0..size.1)
}

fn resize_by(fixed: Fixed, canvas: &Canvas, size: (usize, usize), columns: Range<usize>, rows: Range<usize>) -> Rgb {
    let (width, height) = (columns.len(), rows.len());
    let (horizontal, bits) = weights(fixed, canvas.width, size.0, columns);
    let (vertical, vertical_bits) = weights(fixed, canvas.height, size.1, rows);
    let stride = 3 * width;

    let inside: Vec<Inside> = horizontal.iter().map(|tap| Inside::new(tap, canvas, bits)).collect();
    let empty: Vec<u8> = inside.iter().flat_map(|part| part.whole.map(|sum| to_u8(sum, bits))).collect();
    let filled = canvas.top..canvas.top + canvas.image.height;
    let mut narrow = vec![0; stride * canvas.height];
    narrow.par_chunks_exact_mut(stride).enumerate().for_each(|(y, out)| {
        if filled.contains(&y) {
            shrink_row(canvas.row(y), &inside, bits, out);
        } else {
            out.copy_from_slice(&empty);
        }
    });

    let mut data = vec![0; stride * height];
    data.par_chunks_exact_mut(stride).zip(&vertical).for_each(|(out, tap)| {
        let mut sums = vec![1i32 << (vertical_bits - 1); stride];
        for (i, &weight) in tap.weights.iter().enumerate() {
            let row = &narrow[(tap.start + i) * stride..][..stride];
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += i32::from(value) * weight);
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = to_u8(sum, vertical_bits));
    });
    Rgb { width, height, data }
}

/// The parts of one output sample of a row: the weights of the image's own pixels, and the sum over the padding beside
/// them, which is the same in every row. Without this split, an image of one column in a wide square would take as long
/// as the square.
struct Inside<'t> {
    /// The first of the image's pixels.
    start: usize,
    weights: &'t [i32],
    /// The sum over the padding beside the image, for each channel.
    padding: [i32; 3],
    /// The sum over a row that is padding throughout, for each channel.
    whole: [i32; 3],
}

impl<'t> Inside<'t> {
    fn new(tap: &'t Tap, canvas: &Canvas, bits: u32) -> Self {
        let filled = canvas.left..canvas.left + canvas.image.width;
        let end = tap.start + tap.weights.len();
        let own = tap.start.max(filled.start)..end.min(filled.end);
        let own = if own.start < own.end { own } else { tap.start..tap.start };
        let weights = &tap.weights[own.start - tap.start..own.end - tap.start];
        let all: i32 = tap.weights.iter().sum();
        let beside = all - weights.iter().sum::<i32>();
        let of = |weight: i32| canvas.colour.map(|level| (1i32 << (bits - 1)) + i32::from(level) * weight);
        let start = if weights.is_empty() { 0 } else { own.start - filled.start };
        Self { start, weights, padding: of(beside), whole: of(all) }
    }
}

fn shrink_row(row: &[u8], parts: &[Inside], bits: u32, out: &mut [u8]) {
    for (part, out) in parts.iter().zip(out.chunks_exact_mut(3)) {
        let mut sums = part.padding;
        for (pixel, &weight) in row[3 * part.start..].chunks_exact(3).zip(part.weights) {
            for channel in 0..3 {
                sums[channel] += i32::from(pixel[channel]) * weight;
            }
        }
        out.copy_from_slice(&sums.map(|sum| to_u8(sum, bits)));
    }
}

fn to_u8(sum: i32, bits: u32) -> u8 {
    (sum >> bits).clamp(0, 255) as u8
}

/// The input samples of one output sample, and their weights.
struct Tap {
    start: usize,
    weights: Vec<i32>,
}

/// The taps of the outputs in `range` when `from` samples become `to`, and the number of fractional bits of their weights.
fn weights(fixed: Fixed, from: usize, to: usize, range: Range<usize>) -> (Vec<Tap>, u32) {
    if from == to {
        // Both skip this pass.
        return (range.map(|i| Tap { start: i, weights: vec![1 << PILLOW] }).collect(), PILLOW);
    }
    let scale = from as f64 / to as f64;
    let stretch = scale.max(1.0);
    let reach = SUPPORT * stretch;
    let raw: Vec<(usize, Vec<f64>)> = range
        .map(|i| {
            let centre = (i as f64 + 0.5) * scale;
            let start = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from);
            let raw: Vec<f64> = (start..end).map(|x| bicubic((x as f64 - centre + 0.5) * (1.0 / stretch))).collect();
            let total: f64 = raw.iter().sum();
            (start, raw.into_iter().map(|weight| weight / total).collect())
        })
        .collect();
    let bits = match fixed {
        Fixed::Pillow => PILLOW,
        Fixed::Torch => fitting_bits(raw.iter().flat_map(|(_, weights)| weights.iter().copied()).fold(0.0, f64::max)),
    };
    let whole = |weight: f64| {
        let scaled = weight * f64::from(1u32 << bits);
        (scaled + 0.5f64.copysign(scaled)) as i32
    };
    let taps = raw.into_iter().map(|(start, weights)| Tap { start, weights: weights.into_iter().map(whole).collect() });
    (taps.collect(), bits)
}

/// The largest number of fractional bits, up to Pillow's, with which a weight still is a signed 16-bit number.
fn fitting_bits(largest: f64) -> u32 {
    (0..PILLOW).find(|bits| (0.5 + largest * f64::from(1u32 << (bits + 1))) as i32 >= 1 << 15).unwrap_or(PILLOW)
}

/// Keys' cubic kernel with a = −0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}
