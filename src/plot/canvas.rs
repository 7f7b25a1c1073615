//! The canvas of charts: an image in memory, with our own text.

use std::convert::Infallible;

use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind, FontTransform,
    text_anchor::{HPos, VPos},
};

use super::text::{draw, width};
use crate::image::Rgb;

/// An image that plotters draws on.
pub(super) struct Canvas<'a>(pub(super) &'a mut Rgb);

type Done<T = ()> = Result<T, DrawingErrorKind<Infallible>>;

/// The height of a line divided by plotters' font size.
const LINE: f64 = 1.36;

fn measure<S: BackendTextStyle>(text: &str, style: &S) -> (u32, u32) {
    let line = (style.size() * LINE) as f32;
    (width(text, line).ceil() as u32, line.ceil() as u32)
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.0.width as u32, self.0.height as u32)
    }

    fn ensure_prepared(&mut self) -> Done {
        Ok(())
    }

    fn present(&mut self) -> Done {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Done {
        let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { return Ok(()) };
        if x < self.0.width && y < self.0.height {
            let at = 3 * (y * self.0.width + x);
            let ink = [color.rgb.0, color.rgb.1, color.rgb.2];
            for (level, ink) in self.0.data[at..at + 3].iter_mut().zip(ink) {
                *level = (f64::from(*level) * (1.0 - color.alpha) + f64::from(ink) * color.alpha).round() as u8;
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(&self, text: &str, style: &S) -> Done<(u32, u32)> {
        let (across, down) = measure(text, style);
        Ok(match style.transform() {
            FontTransform::None | FontTransform::Rotate180 => (across, down),
            FontTransform::Rotate90 | FontTransform::Rotate270 => (down, across),
        })
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, (x, y): BackendCoord) -> Done {
        let (across, down) = measure(text, style);
        let left = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -0.5,
            HPos::Right => -1.0,
        } * across as f32;
        let top = match style.anchor().v_pos {
            VPos::Top => 0.0,
            VPos::Center => -0.5,
            VPos::Bottom => -1.0,
        } * down as f32;
        let color = style.color();
        let ink = [color.rgb.0, color.rgb.1, color.rgb.2];
        let line = (style.size() * LINE) as f32;
        if matches!(style.transform(), FontTransform::None) {
            draw(self.0, text, (x as f32 + left, y as f32 + top), line, ink);
            return Ok(());
        }
        // The text is drawn upright, as the share of ink on each pixel, and then turned.
        let (wide, high) = (across as usize + 2, down as usize + 2);
        let mut upright = Rgb { width: wide, height: high, data: vec![0; 3 * wide * high] };
        draw(&mut upright, text, (0.0, 0.0), line, [255; 3]);
        for (i, pixel) in upright.data.chunks_exact(3).enumerate().filter(|(_, pixel)| pixel[0] > 0) {
            let place = ((i % wide) as f32 + left, (i / wide) as f32 + top);
            let (dx, dy) = style.transform().transform(place.0.round() as i32, place.1.round() as i32);
            let alpha = f64::from(pixel[0]) / 255.0 * color.alpha;
            self.draw_pixel((x + dx, y + dy), BackendColor { alpha, rgb: color.rgb })?;
        }
        Ok(())
    }
}
