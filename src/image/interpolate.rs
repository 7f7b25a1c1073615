//! Resizing of floats as in PyTorch's `interpolate` without antialias: a few source pixels for each pixel of the
//! result, however much smaller the result is. Only the part that is asked for is computed.

use std::ops::Range;

/// The kernel by which source pixels are weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Bilinear: `mode="bilinear"`, `align_corners=False`.
    Bilinear,
    /// Bicubic: `mode="bicubic"`, `align_corners=False`, a = −0.75.
    Bicubic,
}

/// The source pixels of a pixel of the result along one side, and their weights.
struct Taps {
    pixels: [usize; 4],
    weights: [f32; 4],
}

impl Kernel {
    fn taps(self, source: usize, target: usize, at: usize) -> Taps {
        let position = source as f32 / target as f32 * (at as f32 + 0.5) - 0.5;
        let last = source - 1;
        match self {
            Self::Bilinear => {
                let position = position.max(0.0);
                let first = (position as usize).min(last);
                let share = (position - first as f32).clamp(0.0, 1.0);
                let next = (first + 1).min(last);
                Taps { pixels: [first, next, next, next], weights: [1.0 - share, share, 0.0, 0.0] }
            }
            Self::Bicubic => {
                let first = position.floor();
                let share = position - first;
                let pixels =
                    std::array::from_fn(|i| (first as isize + i as isize - 1).clamp(0, last as isize) as usize);
                Taps { pixels, weights: [far(share + 1.0), near(share), near(1.0 - share), far(2.0 - share)] }
            }
        }
    }
}

const A: f32 = -0.75;

/// The weight of the bicubic kernel at a distance of at most 1.
fn near(x: f32) -> f32 {
    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
}

/// The weight of the bicubic kernel at a distance of 1 to 2.
fn far(x: f32) -> f32 {
    ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A
}

/// The part in `columns` and `rows` of an image of size `from` (width, height) scaled to `to`: `[3, rows, columns]`.
/// `pixel` gives the source's value of a channel at a column and a row.
pub(super) fn interpolate(
    pixel: impl Fn(usize, usize, usize) -> f32,
    from: (usize, usize),
    to: (usize, usize),
    columns: Range<usize>,
    rows: Range<usize>,
    kernel: Kernel,
) -> Vec<f32> {
    let across: Vec<Taps> = columns.map(|x| kernel.taps(from.0, to.0, x)).collect();
    let down: Vec<Taps> = rows.map(|y| kernel.taps(from.1, to.1, y)).collect();
    let mut out = Vec::with_capacity(3 * across.len() * down.len());
    for channel in 0..3 {
        for vertical in &down {
            for horizontal in &across {
                let row = |i: usize| {
                    let y = vertical.pixels[i];
                    let parts = (0..4).map(|j| horizontal.weights[j] * pixel(channel, horizontal.pixels[j], y));
                    parts.fold(0.0, |sum, part| sum + part)
                };
                out.push((0..4).fold(0.0, |sum, i| sum + vertical.weights[i] * row(i)));
            }
        }
    }
    out
}
