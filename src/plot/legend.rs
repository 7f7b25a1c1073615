//! The legend of a chart: the colours and markers of its methods.

use plotters::{coord::Shift, prelude::*};
use plotters_backend::{DrawingBackend, text_anchor::HPos, text_anchor::Pos, text_anchor::VPos};

use super::{
    style::{FONT, INK, WIDTH},
    text,
};
use crate::pruner::{Params, methods};

/// Okabe's and Ito's colours without the yellow, which is too light for lines.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// The height of a line of the legend.
const LINE: i32 = 22;
/// The smallest width of an entry.
const ENTRY: i32 = 134;
/// The width beside the name in an entry.
const BESIDE: i32 = 30;
const SIZE: i32 = 14;

/// A legend: names, and the sign before each.
pub(super) struct Legend<'a>(pub(super) Vec<(&'a str, Sign)>);

/// The sign before a name in the legend.
#[derive(Clone, Copy)]
pub(super) enum Sign {
    Line,
    Marker { colour: RGBColor, marker: usize, filled: bool },
}

/// A colour and a marker for a method, by its place in the registry, so that it looks the same everywhere.
pub(super) fn look(method: &str) -> (RGBColor, usize) {
    let all = methods(Params::default());
    let place = all.iter().position(|known| known.name() == method).unwrap_or(0);
    // The first method is the baseline without pruning, which has a line of its own.
    match place.checked_sub(1) {
        None => (INK, 0),
        Some(place) => (COLOURS[place % COLOURS.len()], place / COLOURS.len()),
    }
}

impl Legend<'_> {
    pub(super) fn height(&self) -> u32 {
        let (_, per_row) = self.columns();
        self.0.len().div_ceil(per_row) as u32 * LINE as u32
    }

    /// The width of an entry, so that the longest name fits, and the number of entries in a row.
    fn columns(&self) -> (i32, usize) {
        // Pages have fonts of their own, some a third wider than ours.
        let longest = self.0.iter().map(|(name, _)| text::width(name, 1.3 * SIZE as f32)).fold(0.0, f32::max);
        let width = ENTRY.max(longest.ceil() as i32 + BESIDE);
        (width, (WIDTH as i32 / width).max(1) as usize)
    }

    pub(super) fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, scale: i32) -> Option<()> {
        let (width, per_row) = self.columns();
        let style = TextStyle::from((FONT, SIZE * scale)).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
        for (i, (name, sign)) in self.0.iter().enumerate() {
            let (row, column) = ((i / per_row) as i32, (i % per_row) as i32);
            let (x, y) = ((12 + column * width) * scale, (LINE / 2 + row * LINE) * scale);
            match *sign {
                Sign::Marker { colour, marker, filled } => mark(area, (x, y), colour, marker, filled, scale)?,
                Sign::Line => {
                    let style = INK.stroke_width(scale as u32);
                    // The line is dashed, as in the chart.
                    for from in [-6, 1] {
                        let dash = [(x + from * scale, y), (x + (from + 5) * scale, y)];
                        area.draw(&PathElement::new(dash, style)).ok()?;
                    }
                }
            }
            area.draw(&Text::new((*name).to_owned(), (x + 12 * scale, y), style.clone())).ok()?;
        }
        Some(())
    }
}

/// A marker: a circle, a triangle or a square.
pub(super) fn mark<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    (x, y): (i32, i32),
    colour: RGBColor,
    marker: usize,
    filled: bool,
    scale: i32,
) -> Option<()> {
    let size = 5 * scale;
    let style = if filled { colour.filled() } else { colour.stroke_width(2 * scale as u32) };
    match marker {
        0 => area.draw(&Circle::new((x, y), size, style)).ok(),
        1 if filled => area.draw(&TriangleMarker::new((x, y), size + scale, style)).ok(),
        1 => {
            let corners = [(x, y - size), (x + size, y + size), (x - size, y + size), (x, y - size)];
            area.draw(&PathElement::new(corners, style)).ok()
        }
        _ => area.draw(&Rectangle::new([(x - size, y - size), (x + size, y + size)], style)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_methods_look_alike() {
        let looks: Vec<_> = methods(Params::default()).iter().map(|method| look(method.name())).collect();
        for (i, one) in looks.iter().enumerate() {
            assert!(looks[..i].iter().all(|other| other != one), "method {i} looks like another");
        }
    }

    #[test]
    fn long_names_have_room() {
        let legend = |name| Legend(vec![(name, Sign::Line); 4]);
        assert_eq!((legend("cdpruner").columns(), legend("cdpruner").height()), ((ENTRY, 3), 44));
        let (width, per_row) = legend("vispruner (important ratio 0.25)").columns();
        assert!(per_row == 1 && width > 200, "{width}");
    }
}
