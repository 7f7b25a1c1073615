//! An image as sixels: bands of six rows, in which each colour draws its pixels by itself.
//!
//! The colours are those of a cube of 6³, so that none has to be chosen; a library would choose them, and brings a tree
//! of crates for that.

use std::fmt::Write as _;

use crate::image::Rgb;

/// The levels of a channel.
const LEVELS: usize = 6;
/// The rows of a band.
const BAND: usize = 6;
/// The character of six pixels that are not drawn; the bits of those that are drawn are added to it.
const EMPTY: u8 = b'?';

/// The escape sequence that draws `image`.
pub(super) fn sixel(image: &Rgb) -> String {
    let mut text = format!("\x1bPq\"1;1;{};{}", image.width, image.height);
    for colour in 0..LEVELS.pow(3) {
        let [r, g, b] = [colour / LEVELS / LEVELS, colour / LEVELS % LEVELS, colour % LEVELS].map(|level| level * 20);
        // Writing to a string cannot fail.
        let _ = write!(text, "#{colour};2;{r};{g};{b}");
    }
    for top in (0..image.height).step_by(BAND) {
        let mut rows: Vec<Option<Vec<u8>>> = vec![None; LEVELS.pow(3)];
        for (bit, y) in (top..image.height.min(top + BAND)).enumerate() {
            for x in 0..image.width {
                let row = rows[colour(image, x, y)].get_or_insert_with(|| vec![0; image.width]);
                row[x] |= 1 << bit;
            }
        }
        for (colour, row) in rows.into_iter().enumerate().filter_map(|(colour, row)| Some((colour, row?))) {
            let _ = write!(text, "#{colour}");
            row.chunk_by(|a, b| a == b).for_each(|run| repeat(&mut text, run));
            text.push('$');
        }
        text.push('-');
    }
    text.push_str("\x1b\\");
    text
}

/// The colour of the cube that is nearest to a pixel's.
fn colour(image: &Rgb, x: usize, y: usize) -> usize {
    let pixel = &image.data[3 * (y * image.width + x)..][..3];
    pixel.iter().fold(0, |colour, level| colour * LEVELS + (usize::from(*level) * (LEVELS - 1) + 127) / 255)
}

/// Adds a run of equal columns.
fn repeat(text: &mut String, run: &[u8]) {
    let character = char::from(EMPTY + run[0]);
    let _ = match run.len() {
        length @ ..4 => write!(text, "{}", character.to_string().repeat(length)),
        length => write!(text, "!{length}{character}"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_is_drawn_in_its_colour() {
        // Seven rows of five pixels: red but for a black one in the last row.
        let mut data = [255, 0, 0].repeat(35);
        data[3 * 32..3 * 33].fill(0);
        let text = sixel(&Rgb { width: 5, height: 7, data });
        let drawn = text.split("215;2;100;100;100").nth(1).unwrap();
        assert_eq!(drawn, "#180!5~$-#0??@??$#180@@?@@$-\x1b\\");
        assert!(text.starts_with("\x1bPq\"1;1;5;7#0;2;0;0;0#1;2;0;0;20"));
    }
}
