//! Pictures of what was kept.

use std::io::Cursor;

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

use super::Rgb;

/// Pixels between the pictures of a strip.
const GAP: usize = 6;

/// A square picture of `side`·`side` patches with all but the `kept` ones dimmed: greyish, dark, and apart from each
/// other's neighbours at a glance.
pub fn kept_patches(square: &Rgb, side: usize, kept: &[usize]) -> Rgb {
    let patch = square.width / side;
    let mut stays = vec![false; side * side];
    kept.iter().for_each(|&i| stays[i] = true);
    let mut data = square.data.clone();
    for (i, pixel) in data.chunks_exact_mut(3).enumerate() {
        let (x, y) = (i % square.width / patch, i / square.width / patch);
        // Pixels beyond the last whole patch are read by no tower.
        let kept = x < side && y < side && stays[y * side + x];
        if !kept {
            let grey = pixel.iter().map(|&level| u32::from(level)).sum::<u32>() / 3;
            pixel.iter_mut().for_each(|level| *level = ((u32::from(*level) + 3 * grey) / 4 * 3 / 10) as u8);
        }
    }
    Rgb { data, ..*square }
}

/// Pictures of one height side by side on white.
pub fn strip(pictures: &[Rgb]) -> Rgb {
    let height = pictures.iter().map(|picture| picture.height).max().unwrap_or(0);
    let gaps = GAP * pictures.len().saturating_sub(1);
    let width = pictures.iter().map(|picture| picture.width).sum::<usize>() + gaps;
    let mut data = vec![255; width * height * 3];
    let mut left = 0;
    for picture in pictures {
        for (y, row) in picture.data.chunks_exact(picture.width * 3).enumerate() {
            let at = (y * width + left) * 3;
            data[at..at + row.len()].copy_from_slice(row);
        }
        left += picture.width + GAP;
    }
    Rgb { width, height, data }
}

/// The bytes of a PNG file; none for a picture that is too large for one.
pub fn png(picture: &Rgb) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let (width, height) = (picture.width as u32, picture.height as u32);
    // Writing to memory fails only for sizes that do not belong to the data.
    let _ = PngEncoder::new(&mut file).write_image(&picture.data, width, height, ExtendedColorType::Rgb8);
    file.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_patch_stays_as_it_is_and_its_neighbours_are_dimmed() {
        let white = Rgb { width: 12, height: 12, data: vec![255; 12 * 12 * 3] };
        let shown = kept_patches(&white, 3, &[4]);
        for (i, pixel) in shown.data.chunks(3).enumerate() {
            let inside = (4..8).contains(&(i % 12)) && (4..8).contains(&(i / 12));
            assert_eq!(pixel, if inside { [255; 3] } else { [76; 3] }, "pixel {i}");
        }
    }

    #[test]
    fn a_strip_holds_its_pictures_with_gaps_between() {
        let picture = |level| Rgb { width: 2, height: 3, data: vec![level; 18] };
        let joined = strip(&[picture(1), picture(2)]);
        assert_eq!((joined.width, joined.height), (2 + GAP + 2, 3));
        let row: Vec<u8> = joined.data[..joined.width * 3].chunks(3).map(|pixel| pixel[0]).collect();
        assert_eq!(row, [&[1, 1][..], &[255; GAP], &[2, 2]].concat());
        let read = image::load_from_memory(&png(&joined)).unwrap().to_rgb8();
        assert_eq!(read.into_raw(), joined.data);
    }
}
