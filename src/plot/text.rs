//! Text in a font that comes with the binary (Noto Sans), so that images look alike on every machine.

use std::sync::LazyLock;

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};

use crate::image::Rgb;

// The bytes are part of the binary, and the tests read them.
static FONT: LazyLock<FontRef<'static>> =
    LazyLock::new(|| FontRef::try_from_slice(ttf_noto_sans::REGULAR).expect("the font inside the binary is one"));

/// The width of `text` in pixels; `size` is the height of a line.
pub fn width(text: &str, size: f32) -> f32 {
    let font = FONT.as_scaled(PxScale::from(size));
    let mut last = None;
    text.chars()
        .map(|c| {
            let glyph = font.glyph_id(c);
            let kern = last.replace(glyph).map_or(0.0, |last| font.kern(last, glyph));
            kern + font.h_advance(glyph)
        })
        .sum()
}

/// Draws `text` with its line's left upper corner at (`x`, `y`); parts outside of the image are cut off.
pub fn draw(image: &mut Rgb, text: &str, (x, y): (f32, f32), size: f32, colour: [u8; 3]) {
    let font = FONT.as_scaled(PxScale::from(size));
    let (mut x, baseline) = (x, y + font.ascent());
    let mut last = None;
    for c in text.chars() {
        let glyph = font.glyph_id(c);
        x += last.replace(glyph).map_or(0.0, |last| font.kern(last, glyph));
        let placed = glyph.with_scale_and_position(PxScale::from(size), point(x, baseline));
        x += font.h_advance(glyph);
        let Some(outline) = font.outline_glyph(placed) else { continue };
        let corner = outline.px_bounds().min;
        outline.draw(|column, row, share| {
            let (column, row) = (corner.x + column as f32, corner.y + row as f32);
            if column < 0.0 || row < 0.0 || column as usize >= image.width || row as usize >= image.height {
                return;
            }
            let at = 3 * (row as usize * image.width + column as usize);
            let share = share.clamp(0.0, 1.0);
            for (level, ink) in image.data[at..at + 3].iter_mut().zip(colour) {
                *level = (f32::from(*level) * (1.0 - share) + f32::from(ink) * share).round() as u8;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_lies_where_it_is_put_and_nowhere_else() {
        let mut image = Rgb { width: 120, height: 40, data: vec![255; 120 * 40 * 3] };
        draw(&mut image, "Wg →", (10.0, 8.0), 20.0, [0; 3]);
        let dark: Vec<(usize, usize)> =
            (0..120 * 40).filter(|i| image.data[3 * i] < 128).map(|i| (i % 120, i / 120)).collect();
        assert!(!dark.is_empty());
        let right = 10.0 + width("Wg →", 20.0);
        assert!(dark.iter().all(|&(x, y)| x >= 9 && (x as f32) <= right + 1.0 && (8..30).contains(&y)), "{dark:?}");
        // Text is cut off at the edges, without a panic.
        draw(&mut image, "outside", (-20.0, 35.0), 30.0, [0; 3]);
        draw(&mut image, "", (0.0, 0.0), 20.0, [0; 3]);
    }
}
