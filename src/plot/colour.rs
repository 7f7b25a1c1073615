//! Colours for numbers.

use clap::ValueEnum;

/// A scale of colours from low to high.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scale {
    /// Dark blue over green to yellow; equal steps look equal, to colour-blind readers too.
    Viridis,
    /// Blue over green and yellow to red, as in CDPruner's figures.
    Jet,
}

/// Matplotlib's viridis at ten even places.
const VIRIDIS: [[u8; 3]; 10] = [
    [68, 1, 84],
    [72, 40, 120],
    [62, 74, 137],
    [49, 104, 142],
    [38, 130, 142],
    [31, 158, 137],
    [53, 183, 121],
    [110, 206, 88],
    [181, 222, 43],
    [253, 231, 37],
];

/// Matplotlib's jet: the places where each channel has a corner, and its values there.
const JET: [&[(f64, f64)]; 3] = [
    &[(0.0, 0.0), (0.35, 0.0), (0.66, 1.0), (0.89, 1.0), (1.0, 0.5)],
    &[(0.0, 0.0), (0.125, 0.0), (0.375, 1.0), (0.64, 1.0), (0.91, 0.0), (1.0, 0.0)],
    &[(0.0, 0.5), (0.11, 1.0), (0.34, 1.0), (0.65, 0.0), (1.0, 0.0)],
];

impl Scale {
    /// The colour of `share`, from 0 to 1.
    pub fn colour(self, share: f32) -> [u8; 3] {
        let share = share.clamp(0.0, 1.0);
        match self {
            Self::Viridis => {
                let place = share * (VIRIDIS.len() - 1) as f32;
                let below = (place as usize).min(VIRIDIS.len() - 2);
                let (a, b, part) = (VIRIDIS[below], VIRIDIS[below + 1], place - below as f32);
                std::array::from_fn(|i| (f32::from(a[i]) * (1.0 - part) + f32::from(b[i]) * part).round() as u8)
            }
            // This is matplotlib's table of 256 colours, cut to whole levels.
            Self::Jet => {
                JET.map(|corners| (255.0 * between(corners, f64::from((share * 255.0).floor()) / 255.0)) as u8)
            }
        }
    }
}

/// The value at `x` of straight lines between `corners`.
fn between(corners: &[(f64, f64)], x: f64) -> f64 {
    let after = corners.iter().position(|corner| corner.0 >= x).unwrap_or(corners.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (corners[after - 1], corners[after]);
    // The order of operations is numpy's.
    ((y1 - y0) / (x1 - x0) * (x - x0) + y0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_middles_are_matplotlibs() {
        for (scale, share, expected) in [
            (Scale::Viridis, 0.0, [68, 1, 84]),
            (Scale::Viridis, 1.0, [253, 231, 37]),
            (Scale::Jet, 0.0, [0, 0, 127]),
            (Scale::Jet, 1.0, [127, 0, 0]),
        ] {
            assert_eq!(scale.colour(share), expected, "{scale:?} {share}");
        }
        let [red, green, blue] = Scale::Jet.colour(0.5);
        assert!(green == 255 && red > 100 && blue > 100, "{red} {green} {blue}");
        // A NaN is black, which is in neither scale.
        assert_eq!(Scale::Viridis.colour(f32::NAN), [0; 3]);
    }
}
