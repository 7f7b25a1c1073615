//! LLaVA-NeXT's crops: the whole image small, then the image in tiles at a resolution close to its own.
//!
//! The rule is `process_anyres_image` of LLaVA. The repositories differ in how the resolution is chosen, see
//! [`GridRule`].

use super::{
    ClipProcessor, Rgb,
    resize::{Canvas, resize},
};

/// The rule that chooses the resolution, and with it the grid of tiles, for an image.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GridRule {
    /// LLaVA: the most pixels of the image, then the least padding.
    Llava,
    /// FasterVLM and DATP: the largest share of the target filled.
    Filled,
    /// VisPruner and CDPruner: always 2×2 tiles.
    #[cfg_attr(feature = "cli", value(name = "2x2"))]
    TwoByTwo,
}

impl GridRule {
    /// The name that is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::Filled => "filled",
            Self::TwoByTwo => "2x2",
        }
    }

    /// The tiles, columns and rows, for an image of `size` (width, height) among the `resolutions` (width, height) that
    /// a checkpoint was trained with; the side of a tile is `side` pixels.
    ///
    /// An image so thin that nothing of it is left at any resolution takes the first one (FasterVLM: a crash).
    pub fn tiles(self, size: (usize, usize), resolutions: &[(usize, usize)], side: usize) -> Tiles {
        let best = match self {
            Self::TwoByTwo => (2 * side, 2 * side),
            Self::Llava => best(resolutions, |target| {
                let effective = scaled_area(size, target).min(size.0 * size.1);
                (effective as f64, -((target.0 * target.1 - effective) as f64))
            }),
            Self::Filled => {
                best(resolutions, |target| (scaled_area(size, target) as f64 / (target.0 * target.1) as f64, 0.0))
            }
        };
        Tiles { columns: best.0 / side, rows: best.1 / side }
    }
}

/// The first of the resolutions with the best value.
fn best(resolutions: &[(usize, usize)], value: impl Fn((usize, usize)) -> (f64, f64)) -> (usize, usize) {
    let mut best = resolutions[0];
    for &target in &resolutions[1..] {
        if value(target) > value(best) {
            best = target;
        }
    }
    best
}

/// The number of pixels of an image that was scaled to fit into `target`.
fn scaled_area((width, height): (usize, usize), target: (usize, usize)) -> usize {
    let scale = (target.0 as f64 / width as f64).min(target.1 as f64 / height as f64);
    (width as f64 * scale) as usize * (height as f64 * scale) as usize
}

/// The tiles of an image, row by row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiles {
    /// The number of tiles side by side.
    pub columns: usize,
    /// The number of tiles one above the other.
    pub rows: usize,
}

impl Tiles {
    /// The number of crops, the whole image included.
    pub fn crops(self) -> usize {
        1 + self.columns * self.rows
    }
}

/// The crops of `image` as 8-bit squares: the whole image squeezed into one, then the tiles row by row.
pub fn crops(image: &Rgb, processor: &ClipProcessor, tiles: Tiles) -> Vec<Rgb> {
    let side = processor.size;
    let plain = Canvas::plain(image);
    let whole = resize(&plain, (side, side), 0..side, 0..side);
    if tiles.crops() == 1 {
        return vec![whole];
    }
    let (width, height) = (tiles.columns * side, tiles.rows * side);
    let fit = fitted((image.width, image.height), (width, height));
    let scaled = resize(&plain, fit, 0..fit.0, 0..fit.1);
    let padded = padded(&scaled, width, height);
    let cut = |row: usize, column: usize| {
        let data = (row * side..(row + 1) * side)
            .flat_map(|y| padded[3 * (y * width + column * side)..][..3 * side].iter().copied())
            .collect();
        Rgb { width: side, height: side, data }
    };
    let tiles = (0..tiles.rows).flat_map(|row| (0..tiles.columns).map(move |column| (row, column)));
    std::iter::once(whole).chain(tiles.map(|(row, column)| cut(row, column))).collect()
}

/// The size of an image that was scaled to fit into `target`, rounded up; at least a pixel each way.
fn fitted((width, height): (usize, usize), target: (usize, usize)) -> (usize, usize) {
    let (across, down) = (target.0 as f64 / width as f64, target.1 as f64 / height as f64);
    if across < down {
        (target.0, ((height as f64 * across).ceil() as usize).min(target.1))
    } else {
        (((width as f64 * down).ceil() as usize).min(target.0), target.1)
    }
}

/// The pixels of `image` in the middle of a black canvas.
fn padded(image: &Rgb, width: usize, height: usize) -> Vec<u8> {
    let (left, top) = ((width - image.width) / 2, (height - image.height) / 2);
    let mut data = vec![0; 3 * width * height];
    for (y, row) in image.data.chunks_exact(3 * image.width).enumerate() {
        data[3 * ((top + y) * width + left)..][..row.len()].copy_from_slice(row);
    }
    data
}
