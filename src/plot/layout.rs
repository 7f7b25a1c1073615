//! Layout of images: with captions, in columns and rows, under maps of numbers.

use super::{
    Scale,
    text::{draw, width},
};
use crate::image::{Grid, Rgb};

/// The height of a caption's line, and the space around it.
const LINE: f32 = 26.0;
const MARGIN: usize = 6;
/// Pixels between images.
const GAP: usize = 12;

const INK: [u8; 3] = [20, 20, 20];

pub(super) fn white(width: usize, height: usize) -> Rgb {
    Rgb { width, height, data: vec![255; 3 * width * height] }
}

/// Copies `from` into `to` with its corner at (`left`, `top`); it must fit.
fn paste(to: &mut Rgb, from: &Rgb, left: usize, top: usize) {
    for (y, row) in from.data.chunks_exact(3 * from.width).enumerate() {
        let at = 3 * ((top + y) * to.width + left);
        to.data[at..at + row.len()].copy_from_slice(row);
    }
}

/// An image under a line of text, wider if the text is wider.
pub fn captioned(image: &Rgb, text: &str) -> Rgb {
    let height = LINE as usize + 2 * MARGIN;
    let mut whole = white(image.width.max(width(text, LINE).ceil() as usize), image.height + height);
    draw(&mut whole, text, (0.0, MARGIN as f32), LINE, INK);
    paste(&mut whole, image, 0, height);
    whole
}

/// Images one above the other, on white.
pub fn stack(images: &[Rgb]) -> Rgb {
    let width = images.iter().map(|image| image.width).max().unwrap_or(0);
    let gaps = GAP * images.len().saturating_sub(1);
    let mut whole = white(width, images.iter().map(|image| image.height).sum::<usize>() + gaps);
    let mut top = 0;
    for image in images {
        paste(&mut whole, image, 0, top);
        top += image.height + GAP;
    }
    whole
}

/// Images in rows of `columns` each, on white.
pub fn columns(images: &[Rgb], columns: usize) -> Rgb {
    let rows: Vec<Rgb> = images
        .chunks(columns.max(1))
        .map(|row| {
            let gaps = GAP * (row.len() - 1);
            let width = row.iter().map(|image| image.width).sum::<usize>() + gaps;
            let mut whole = white(width, row.iter().map(|image| image.height).max().unwrap_or(0));
            let mut left = 0;
            for image in row {
                paste(&mut whole, image, left, 0);
                left += image.width + GAP;
            }
            whole
        })
        .collect();
    stack(&rows)
}

/// A part of an image: `size` (width, height) from (left, top) on, as far as the image has it.
pub fn cut(image: &Rgb, (left, top): (usize, usize), size: (usize, usize)) -> Rgb {
    let (width, height) = (size.0.min(image.width - left), size.1.min(image.height - top));
    let row = |y: usize| &image.data[3 * ((top + y) * image.width + left)..][..3 * width];
    Rgb { width, height, data: (0..height).flat_map(row).copied().collect() }
}

/// The smallest and the largest of some numbers.
pub fn reach<'a>(numbers: impl IntoIterator<Item = &'a f32>) -> (f32, f32) {
    let (low, high) = (f32::INFINITY, f32::NEG_INFINITY);
    numbers.into_iter().fold((low, high), |(least, most), &number| (least.min(number), most.max(number)))
}

/// An image under a heat map that hides a share `alpha` of it. `numbers` has a number for each patch of `grid`, and the
/// scale goes from `least` to `most`. If these are equal, all patches have the colour in the middle.
pub fn heat(image: &Rgb, grid: Grid, numbers: &[f32], (least, most): (f32, f32), scale: Scale, alpha: f32) -> Rgb {
    let (width, height) = ((image.width / grid.columns).max(1), (image.height / grid.rows).max(1));
    let share = |number: f32| if most > least { (number - least) / (most - least) } else { 0.5 };
    let mut data = image.data.clone();
    for (i, pixel) in data.chunks_exact_mut(3).enumerate() {
        // Pixels beyond the last whole patch get its colour.
        let x = (i % image.width / width).min(grid.columns - 1);
        let y = (i / image.width / height).min(grid.rows - 1);
        let colour = scale.colour(share(numbers[y * grid.columns + x]));
        for (level, ink) in pixel.iter_mut().zip(colour) {
            // The value is cut to a whole level, as in numpy.
            *level = (f32::from(*level) * (1.0 - alpha) + f32::from(ink) * alpha) as u8;
        }
    }
    Rgb { data, ..*image }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heat_lies_on_its_patch() {
        let black = Rgb { width: 8, height: 8, data: vec![0; 8 * 8 * 3] };
        let map = heat(&black, Grid::image(2, 2), &[0.0, 0.0, 3.0, 0.0], reach(&[3.0, 0.0]), Scale::Viridis, 0.5);
        for (i, pixel) in map.data.chunks(3).enumerate() {
            let hot = i % 8 < 4 && i / 8 >= 4;
            assert_eq!(pixel, if hot { [126, 115, 18] } else { [34, 0, 42] }, "pixel {i}");
        }
    }

    #[test]
    fn images_stand_side_by_side_in_rows() {
        let image = |level: u8, width| Rgb { width, height: 3, data: vec![level; 9 * width] };
        let sheet = columns(&[image(1, 2), image(2, 2), image(3, 4)], 2);
        assert_eq!((sheet.width, sheet.height), (4 + GAP, 6 + GAP));
        assert_eq!(sheet.data[0], 1);
        assert_eq!(sheet.data[3 * (2 + GAP)], 2);
        assert_eq!(sheet.data[3 * (3 + GAP) * sheet.width], 3);
        assert_eq!(cut(&sheet, (2 + GAP, 0), (9, 1)).data, [2; 6]);
    }
}
