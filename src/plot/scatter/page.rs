//! A chart as a part of a page: in the page's colours, with names beside the lines, and each method in a group that a script can hide.

use plotters::prelude::*;

use super::{
    super::{legend::look, style::INK},
    GRID, HEIGHT, NAMES, Scatter, Series, WIDE,
};

impl Scatter {
    /// The chart as SVG inside of a page that is light or dark: it takes the text's colour for ink, `var(--grid)` for
    /// the grid, and the width of the page.
    pub fn inline(&self) -> String {
        let hex = |colour: RGBColor| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
        let size = format!("width=\"{WIDE}\" height=\"{HEIGHT}\"");
        let label = format!("role=\"img\" aria-label=\"{}\"", attribute(&self.title));
        let svg = self.in_groups().replacen(&size, &label, 1);
        let svg = svg.replace(&hex(INK), "currentColor").replace(&hex(GRID), "var(--grid)");
        // An SVG inside of a page has no XML declaration.
        svg.split_once("<svg").map_or(svg.clone(), |(_, rest)| format!("<svg{rest}"))
    }

    /// The chart without a legend, with names beside the lines, and each method in a group of its own: `<g data-method="0">`.
    fn in_groups(&self) -> String {
        const END: &str = "</svg>\n";
        let with = |series: &[Series]| {
            let (mut text, mut points) = (String::new(), Vec::new());
            let area = SVGBackend::with_string(&mut text, (WIDE, HEIGHT)).into_drawing_area();
            if let Some(found) = self.draw(&area, 1, series, false) {
                points = found;
            }
            drop(area);
            (text, points)
        };
        let (empty, _) = with(&[]);
        let body = empty.strip_suffix(END).unwrap_or(&empty);
        let mut svg = body.to_owned();
        for (i, (series, label)) in self.series.iter().zip(self.labels()).enumerate() {
            let (whole, points) = with(std::slice::from_ref(series));
            // Everything before the method is the same in both.
            let own = whole.strip_prefix(body).and_then(|rest| rest.strip_suffix(END)).unwrap_or_default();
            let (colour, _) = look(&series.method);
            let hex = format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
            let hover: String = points
                .iter()
                .map(|([x, y], text)| {
                    let text = attribute(text);
                    format!(
                        "<circle cx=\"{x}\" cy=\"{y}\" r=\"9\" fill=\"transparent\"><title>{text}</title></circle>\n"
                    )
                })
                .collect();
            let (left, name) = (WIDE as i32 - NAMES + 6, attribute(&series.name));
            svg += &format!(
                "<g data-method=\"{i}\">\n{own}<text x=\"{left}\" y=\"{label}\" font-size=\"13\" font-family=\"sans-serif\" \
                 fill=\"{hex}\">{name}</text>\n{hover}</g>\n"
            );
        }
        svg + END
    }

    /// The heights of the names beside the lines, each near its method's last point, as far as they leave room for each other.
    fn labels(&self) -> Vec<i32> {
        const ROOM: i32 = 15;
        let [_, (low, high)] = self.ranges();
        let (top, bottom) = (44, HEIGHT as i32 - 56);
        let height = |series: &Series| {
            let points = if series.measured.is_empty() { &series.published } else { &series.measured };
            let last = points.iter().max_by(|a, b| a.x.total_cmp(&b.x)).map_or(low, |point| point.y);
            bottom - ((last - low) / (high - low) * f64::from(bottom - top)) as i32
        };
        let mut order: Vec<(i32, usize)> =
            self.series.iter().enumerate().map(|(i, series)| (height(series), i)).collect();
        order.sort_unstable();
        let mut labels = vec![0; order.len()];
        let mut least = top;
        for (left, (height, i)) in (1..=order.len() as i32).rev().zip(order) {
            // Those below must have room, too.
            labels[i] = height.min(bottom - (left - 1) * ROOM).max(least);
            least = labels[i] + ROOM;
        }
        labels
    }
}

/// Text for an attribute in quotes.
fn attribute(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
