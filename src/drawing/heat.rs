//! Heat maps: what a method ranks patches by, as colours over the image.

use clap::ValueEnum;

use crate::{
    image::{Grid, Rgb},
    plot::{Scale, captioned, heat, reach, stack},
};

/// The share of the image that colours hide.
pub(crate) const ALPHA: f32 = 0.5;
/// The height of a colour bar.
const BAR: usize = 12;

/// How scores become colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum HeatBy {
    /// By their ranks: the same number of patches has each colour
    Rank,
    /// By their logarithms
    Log,
    /// As they are: attention then leaves nearly all patches dark
    Value,
}

impl HeatBy {
    /// The numbers that are drawn for the scores of all items, and the words at the ends of the colour bar.
    pub(crate) fn numbers(self, scores: &[Vec<f32>]) -> (Vec<Vec<f32>>, [String; 2]) {
        let (least, most) = reach(scores.iter().flatten());
        let ends = |low: f32, high: f32| [format!("{low:.2e}"), format!("{high:.2e}")];
        match self {
            Self::Value => (scores.to_vec(), ends(least, most)),
            Self::Log => {
                // Scores that are not positive have no logarithm: they are counted from the least.
                let shift = if least > 0.0 { 0.0 } else { f32::MIN_POSITIVE - least };
                let floor = (most + shift) * 1e-6;
                let log = |score: &f32| (score + shift).max(floor).ln();
                (scores.iter().map(|own| own.iter().map(log).collect()).collect(), ends(least, most))
            }
            Self::Rank => {
                let mut sorted: Vec<f32> = scores.iter().flatten().copied().collect();
                sorted.sort_by(f32::total_cmp);
                // Equal scores have one rank.
                let rank = |score: &f32| sorted.partition_point(|other| other < score) as f32;
                let ranks = scores.iter().map(|own| own.iter().map(rank).collect()).collect();
                (ranks, ["last".to_owned(), "first by rank".to_owned()])
            }
        }
    }
}

/// An item under its heat map, with its kept patches outlined.
pub(crate) fn drawn(item: &Rgb, grid: Grid, numbers: &[f32], ends: (f32, f32), scale: Scale, kept: &[usize]) -> Rgb {
    outlined(heat(item, grid, numbers, ends, scale, ALPHA), grid, kept)
}

/// Draws a white line around kept patches, where they border on others.
fn outlined(mut image: Rgb, grid: Grid, kept: &[usize]) -> Rgb {
    let (width, height) = ((image.width / grid.columns).max(1), (image.height / grid.rows).max(1));
    let mut stays = vec![false; grid.rows * grid.columns];
    kept.iter().for_each(|&patch| stays[patch] = true);
    let is_kept = |x: usize, y: usize| x < grid.columns && y < grid.rows && stays[y * grid.columns + x];
    for (i, pixel) in image.data.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % image.width, i / image.width);
        let (column, row) = (x / width, y / height);
        if !is_kept(column, row) {
            continue;
        }
        let borders = [
            (x % width == 0, column.checked_sub(1).map(|column| (column, row))),
            (x % width == width - 1, Some((column + 1, row))),
            (y % height == 0, row.checked_sub(1).map(|row| (column, row))),
            (y % height == height - 1, Some((column, row + 1))),
        ];
        let is_edge =
            |(at, next): &(bool, Option<(usize, usize)>)| *at && next.is_none_or(|(column, row)| !is_kept(column, row));
        if borders.iter().any(is_edge) {
            pixel.fill(255);
        }
    }
    image
}

/// A drawing above its colour bar, whose ends are named.
pub(crate) fn with_bar(image: &Rgb, scale: Scale, [low, high]: [String; 2]) -> Rgb {
    let row: Vec<u8> = (0..image.width).flat_map(|x| scale.colour(x as f32 / image.width.max(2) as f32)).collect();
    let bar = Rgb { width: image.width, height: BAR, data: row.repeat(BAR) };
    stack(&[image.clone(), captioned(&bar, &format!("{low} to {high}"))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_become_numbers() {
        let scores = [vec![0.5, 0.1], vec![0.1, 0.9]];
        assert_eq!(HeatBy::Rank.numbers(&scores).0, [vec![2.0, 0.0], vec![0.0, 3.0]]);
        assert_eq!(HeatBy::Value.numbers(&scores).0, scores);
        let (logs, ends) = HeatBy::Log.numbers(&[vec![1.0, 0.0, -1.0]]);
        assert!(logs[0].windows(2).all(|pair| pair[0] > pair[1] && pair[1].is_finite()), "{logs:?}");
        assert_eq!(ends, ["-1.00e0", "1.00e0"]);
    }

    #[test]
    fn kept_patches_have_an_outline() {
        let black = Rgb { width: 12, height: 12, data: vec![0; 432] };
        let image = outlined(black, Grid::image(3, 3), &[4]);
        let white = |x: usize, y: usize| image.data[3 * (12 * y + x)] == 255;
        assert!(white(4, 4) && white(7, 5) && white(5, 7) && !white(5, 5) && !white(3, 4) && !white(8, 4));
    }
}
