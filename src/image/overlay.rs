//! Images of the patches that were kept.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::{Grid, Rgb};

/// An image of `grid` patches in which all but the `kept` ones are greyish and dark.
pub fn kept_patches(image: &Rgb, grid: Grid, kept: &[usize]) -> Rgb {
    let (width, height) = ((image.width / grid.columns).max(1), (image.height / grid.rows).max(1));
    let mut stays = vec![false; grid.rows * grid.columns];
    kept.iter().for_each(|&i| stays[i] = true);
    let mut data = image.data.clone();
    for (i, pixel) in data.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % image.width / width, i / image.width / height);
        // Pixels beyond the last whole patch are read by no tower.
        let kept = x < grid.columns && y < grid.rows && stays[y * grid.columns + x];
        if !kept {
            let grey = pixel.iter().map(|&level| u32::from(level)).sum::<u32>() / 3;
            pixel.iter_mut().for_each(|level| *level = ((u32::from(*level) + 3 * grey) / 4 * 3 / 10) as u8);
        }
    }
    Rgb { data, ..*image }
}

/// The bytes of a PNG file; empty if the image is too large for one.
pub fn png(image: &Rgb) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let (width, height) = (image.width as u32, image.height as u32);
    // Writing to memory fails only for sizes that do not belong to the data.
    let _ = PngEncoder::new(&mut file).write_image(&image.data, width, height, ExtendedColorType::Rgb8);
    file.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_patch_stays_as_it_is_and_its_neighbours_are_dimmed() {
        let white = Rgb { width: 12, height: 12, data: vec![255; 12 * 12 * 3] };
        let shown = kept_patches(&white, Grid::image(3, 3), &[4]);
        for (i, pixel) in shown.data.chunks(3).enumerate() {
            let inside = (4..8).contains(&(i % 12)) && (4..8).contains(&(i / 12));
            assert_eq!(pixel, if inside { [255; 3] } else { [76; 3] }, "pixel {i}");
        }
    }

    #[test]
    fn a_png_holds_the_image() {
        let image = Rgb { width: 2, height: 3, data: (0..18).collect() };
        let read = image::load_from_memory(&png(&image)).unwrap().to_rgb8();
        assert_eq!((read.width(), read.height(), read.into_raw()), (2, 3, image.data));
    }
}
