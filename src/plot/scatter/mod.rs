//! A chart that compares methods: points joined by lines, with a colour and a marker for each method, as SVG for pages
//! and as an image.

mod page;

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
};
use plotters_backend::{DrawingBackend, text_anchor::HPos, text_anchor::Pos, text_anchor::VPos};

use super::{
    canvas::Canvas,
    layout::white,
    legend::{Legend, Sign, look, mark},
    style::{FONT, INK, WIDTH},
};
use crate::image::Rgb;

const HEIGHT: u32 = 320;
/// The width of a chart in a page, with names beside the lines, and the room for these.
const WIDE: u32 = 480;
const NAMES: i32 = 108;
const GRID: RGBColor = RGBColor(221, 221, 222);
/// A point in the chart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The horizontal coordinate.
    pub x: f64,
    /// The vertical coordinate.
    pub y: f64,
    /// The standard error of the vertical coordinate, which is drawn as a bar.
    pub error: Option<f64>,
}

/// The points of one method.
#[derive(Clone, Debug)]
pub struct Series {
    /// The method, which decides colour and marker.
    pub method: String,
    /// The name of the method in the legend.
    pub name: String,
    /// The measured points, which are filled and joined by a line.
    pub measured: Vec<Point>,
    /// The published points, which are hollow.
    pub published: Vec<Point>,
}

/// A chart's coordinates.
type Chart<'a, B> = ChartContext<'a, B, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// A chart of methods.
#[derive(Clone, Debug)]
pub struct Scatter {
    /// The title above the chart.
    pub title: String,
    /// The label below the chart.
    pub x: String,
    /// The label beside the chart.
    pub y: String,
    /// Whether the horizontal axis has a logarithmic scale, on which doublings are equal steps.
    pub doublings: bool,
    /// Whether the points that no other beats in both directions are joined.
    pub front: bool,
    /// The value without pruning, drawn as a line.
    pub baseline: Option<f64>,
    /// The methods.
    pub series: Vec<Series>,
}

impl Scatter {
    /// The chart as an image, at twice its size.
    pub fn image(&self) -> Rgb {
        let mut image = white(2 * WIDTH as usize, 2 * self.height() as usize);
        // Drawing into memory cannot fail.
        let _ = self.draw(&Canvas(&mut image).into_drawing_area(), 2, &self.series, true);
        image
    }

    /// The chart as an SVG file of its own, dark on white.
    pub fn svg(&self) -> String {
        self.transparent().replacen("<svg ", "<svg style=\"background:#fff\" ", 1)
    }

    fn transparent(&self) -> String {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, (WIDTH, self.height())).into_drawing_area();
        let _ = self.draw(&area, 1, &self.series, true);
        drop(area);
        text
    }

    fn height(&self) -> u32 {
        HEIGHT + self.legend().height() + 8
    }

    fn legend(&self) -> Legend<'_> {
        let mut entries = Vec::new();
        entries.extend(self.baseline.map(|_| ("no pruning", Sign::Line)));
        for series in &self.series {
            let (colour, marker) = look(&series.method);
            entries.push((series.name.as_str(), Sign::Marker { colour, marker, filled: true }));
        }
        if self.series.iter().any(|series| !series.published.is_empty()) {
            entries.push(("published", Sign::Marker { colour: INK, marker: 0, filled: false }));
        }
        Legend(entries)
    }

    /// Draws the chart with some of its methods, with a legend below or room for names at the right; gives the places of the measured points, and what
    /// they say.
    fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        scale: i32,
        series: &[Series],
        legend_below: bool,
    ) -> Option<Vec<([i32; 2], String)>> {
        let font = |size: i32| TextStyle::from((FONT, size * scale)).color(&INK);
        let (chart_area, legend) = area.split_vertically(HEIGHT as i32 * scale);
        let [xs, ys] = self.ranges();
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(&self.title, font(19))
            .margin(8 * scale)
            .margin_right(if legend_below { 22 } else { NAMES } * scale)
            .x_label_area_size(46 * scale)
            .y_label_area_size(62 * scale)
            .build_cartesian_2d(xs.0..xs.1, ys.0..ys.1)
            .ok()?;
        let across = |x: &f64| if self.doublings { format!("{:.0}", x.exp2()) } else { short(*x, xs.1 - xs.0) };
        chart
            .configure_mesh()
            // The labels below stand at the budgets, which plotters does not know.
            .disable_x_mesh()
            .x_labels(0)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(INK)
            .x_desc(&self.x)
            .y_desc(&self.y)
            .label_style(font(14))
            .axis_desc_style(font(15))
            .y_labels(7)
            .y_label_formatter(&|y| short(*y, ys.1 - ys.0))
            .draw()
            .ok()?;
        let below = font(14).pos(Pos::new(HPos::Center, VPos::Top));
        for x in self.ticks(xs) {
            chart.draw_series([PathElement::new([(x, ys.0), (x, ys.1)], GRID)]).ok()?;
            let (left, bottom) = chart.backend_coord(&(x, ys.0));
            area.draw(&Text::new(across(&x), (left, bottom + 6 * scale), below.clone())).ok()?;
        }
        if let Some(y) = self.baseline {
            let dashes = (0..40).map(|i| {
                let at = |share: f64| xs.0 + (xs.1 - xs.0) * share / 40.0;
                PathElement::new([(at(f64::from(i)), y), (at(f64::from(i) + 0.6), y)], INK.stroke_width(scale as u32))
            });
            chart.draw_series(dashes).ok()?;
        }
        self.draw_front(&mut chart, scale)?;
        let mut places = Vec::new();
        for Series { method, name, measured, published } in series {
            let (colour, marker) = look(method);
            let place = |point: &Point| (self.across(point.x), point.y);
            // Each piece is drawn by itself: a polyline's corner may reach far beyond the point where two pieces turn back.
            let pieces = measured.windows(2).map(|pair| {
                PathElement::new([place(&pair[0]), place(&pair[1])], colour.stroke_width(2 * scale as u32))
            });
            chart.draw_series(pieces).ok()?;
            let bars = measured.iter().filter_map(|point| {
                let (x, error) = (self.across(point.x), point.error?);
                Some(PathElement::new([(x, point.y - error), (x, point.y + error)], colour.stroke_width(scale as u32)))
            });
            chart.draw_series(bars).ok()?;
            for point in measured {
                let (x, y) = chart.backend_coord(&place(point));
                let error = point.error.map_or_else(String::new, |error| format!(" ± {error:.2}"));
                places.push(([x, y], format!("{name}: {:.2}{error} at {}", point.y, short(point.x, 99.0))));
            }
            for (points, filled) in [(measured, true), (published, false)] {
                for point in points {
                    let at = chart.backend_coord(&place(point));
                    mark(area, at, colour, marker, filled, scale)?;
                }
            }
        }
        if legend_below {
            self.legend().draw(&legend, scale)?;
        }
        area.present().ok()?;
        Some(places)
    }

    /// Joins the measured points that no other beats in both directions: fewer tokens or less time, and a better score.
    fn draw_front<B: DrawingBackend>(&self, chart: &mut Chart<B>, scale: i32) -> Option<()> {
        let mut points: Vec<&Point> = self.series.iter().flat_map(|series| &series.measured).collect();
        points.sort_by(|a, b| a.x.total_cmp(&b.x).then(b.y.total_cmp(&a.y)));
        let mut best = f64::NEG_INFINITY;
        points.retain(|point| {
            point.y > best && {
                best = point.y;
                true
            }
        });
        if self.front && points.len() > 1 {
            let line = points.iter().map(|point| (self.across(point.x), point.y));
            let style = INK.mix(0.18).stroke_width(7 * scale as u32);
            chart.draw_series([PathElement::new(line.collect::<Vec<_>>(), style)]).ok()?;
        }
        Some(())
    }

    fn across(&self, x: f64) -> f64 {
        if self.doublings { x.log2() } else { x }
    }

    /// The places of the labels below: at the budgets, as far as they leave room for each other, or at even steps.
    fn ticks(&self, (low, high): (f64, f64)) -> Vec<f64> {
        let room = (high - low) / 12.0;
        if !self.doublings {
            // The step is 1, 2 or 5 times a power of ten, for about five labels.
            let power = 10f64.powf(((high - low) / 5.0).log10().floor());
            let step =
                [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| (high - low) / step <= 6.0);
            let step = step.unwrap_or(high - low);
            return (0..=7).map(|i| ((low / step).ceil() + f64::from(i)) * step).filter(|x| *x <= high).collect();
        }
        let mut places: Vec<f64> = self.points().map(|point| self.across(point.x)).collect();
        places.sort_by(f64::total_cmp);
        places.dedup_by(|next, before| *next - *before < room);
        places
    }

    fn points(&self) -> impl Iterator<Item = &Point> {
        self.series.iter().flat_map(|series| series.measured.iter().chain(&series.published))
    }

    /// The ranges of both axes: all points and the baseline, with room around.
    fn ranges(&self) -> [(f64, f64); 2] {
        let points = || self.points();
        let room = |numbers: Vec<f64>, least: f64| {
            let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
            let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            if low > high {
                return (0.0, 1.0);
            }
            let more = (0.08 * (high - low)).max(least);
            (low - more, high + more)
        };
        let ends = |point: &Point| [point.y - point.error.unwrap_or(0.0), point.y + point.error.unwrap_or(0.0)];
        let ys = points().flat_map(ends).chain(self.baseline).collect();
        let (low, high) = room(points().map(|point| self.across(point.x)).collect(), 0.1);
        [(if self.doublings { low } else { low.max(0.0) }, high), room(ys, 0.5)]
    }
}

/// A number with enough digits to tell labels apart on an axis of this length.
fn short(number: f64, length: f64) -> String {
    let digits = if length > 10.0 { 0 } else { 1 + usize::from(length < 1.5) };
    format!("{number:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Scatter {
        let points = |start: f64| {
            [29.0, 64.0, 192.0].iter().map(|&x| Point { x, y: start + x / 50.0, error: Some(0.5) }).collect()
        };
        let series = ["fastervlm", "cdpruner", "grid"];
        let series = series.iter().enumerate().map(|(i, method)| Series {
            method: (*method).to_owned(),
            name: (*method).to_owned(),
            measured: points(80.0 + 3.0 * i as f64),
            published: vec![Point { x: 64.0, y: 81.0, error: None }],
        });
        Scatter {
            title: "POPE".to_owned(),
            x: "visual tokens".to_owned(),
            y: "F1".to_owned(),
            doublings: true,
            front: true,
            baseline: Some(90.0),
            series: series.collect(),
        }
    }

    #[test]
    fn a_page_gets_no_size_no_declaration_and_its_own_colours() {
        let svg = example().inline();
        assert!(svg.starts_with("<svg") && svg.contains("viewBox") && svg.contains("currentColor"), "{svg}");
        assert!(svg.contains("var(--grid)") && !svg.contains("width=\"420\""));
        for text in
            ["POPE", "visual tokens", "F1", ">fastervlm</text>", "<title>fastervlm: 83.84 ± 0.50 at 192</title>"]
        {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        // A group for each method, which has its line and its markers.
        let groups: Vec<&str> = svg.split("<g data-method=").skip(1).collect();
        assert_eq!(groups.len(), 3);
        for group in groups {
            assert!(group.contains("<polyline") && group.contains("<circle") && group.contains("</g>"), "{group}");
        }
        let file = example().svg();
        assert!(file.contains("width=\"420\"") && file.contains("background:#fff"));
    }

    #[test]
    fn an_image_has_every_methods_colour_and_survives_having_none() {
        let image = example().image();
        for method in ["fastervlm", "cdpruner", "grid"] {
            let (colour, _) = look(method);
            let ink = [colour.0, colour.1, colour.2];
            assert!(image.data.chunks(3).any(|pixel| pixel == ink), "{method}");
        }
        let hostile = Scatter { title: "x\" onload=\"alert(1)".to_owned(), ..example() };
        assert!(!hostile.inline().contains("\" onload=\""));
        let empty = Scatter { series: Vec::new(), baseline: None, ..example() };
        assert!(empty.inline().contains("POPE"));
    }
}
