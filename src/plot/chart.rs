//! Charts as images, through plotters.

use plotters::prelude::*;

use super::{
    canvas::Canvas,
    captioned, heat,
    layout::{reach, white},
};
use crate::{
    image::{Grid, Rgb},
    plot::Scale,
};

/// The side of a chart in pixels.
const SIDE: usize = 640;
/// Colours that colour-blind readers tell apart (Okabe and Ito).
const LINES: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// The texts around a chart.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// The title above the chart.
    pub title: &'a str,
    /// The label below the chart.
    pub x: &'a str,
    /// The label on the left side of the chart.
    pub y: &'a str,
}

/// Draws a chart into memory, which cannot fail; the sizes here leave room for every part.
fn drawn(draw: impl FnOnce(&DrawingArea<Canvas, plotters::coord::Shift>) -> Option<()>) -> Rgb {
    let mut image = white(SIDE, SIDE);
    let _ = draw(&Canvas(&mut image).into_drawing_area());
    image
}

/// A bar chart with a bar for each token, and a thin line after every `row` tokens, where a row of the image ends.
pub fn bars(labels: Labels, values: &[f32], row: usize) -> Rgb {
    let most = values.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
    drawn(|area| {
        let count = values.len() as f32;
        let mut chart = ChartBuilder::on(area)
            .caption(labels.title, ("sans-serif", 24))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(58)
            .y_label_area_size(84)
            .build_cartesian_2d(0.0f32..count, 0.0f32..most * 1.05)
            .ok()?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc(labels.x)
            .y_desc(labels.y)
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 18))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| short(*y))
            .draw()
            .ok()?;
        let bar =
            |(i, value): (usize, &f32)| Rectangle::new([(i as f32, 0.0), (i as f32 + 1.0, *value)], LINES[0].filled());
        chart.draw_series(values.iter().enumerate().map(bar)).ok()?;
        let ends = (0..values.len()).step_by(row.max(1)).skip(1).map(|i| i as f32);
        chart.draw_series(ends.map(|x| PathElement::new([(x, 0.0), (x, most * 1.05)], RED.mix(0.25)))).ok()?;
        area.present().ok()
    })
}

/// The values of a grid of tokens as colours, the smallest dark, the largest bright.
pub fn map(title: &str, values: &[f32], grid: Grid) -> Rgb {
    let cell = (SIDE / grid.columns.max(grid.rows).max(1)).max(1);
    let white = white(cell * grid.columns, cell * grid.rows);
    captioned(&heat(&white, grid, values, reach(values), Scale::Viridis, 1.0), title)
}

/// A chart of lines, each with its name, on axes from (0, 0) to `to`.
pub fn curves(labels: Labels, lines: &[(&str, Vec<(f32, f32)>)], to: (f32, f32)) -> Rgb {
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(labels.title, ("sans-serif", 24))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(58)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0f32..to.0, 0.0f32..to.1)
            .ok()?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(labels.x)
            .y_desc(labels.y)
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 18))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()
            .ok()?;
        for ((name, points), colour) in lines.iter().zip(LINES) {
            let style = colour.stroke_width(3);
            let series = chart.draw_series(LineSeries::new(points.iter().copied(), style)).ok()?;
            series.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(("sans-serif", 18))
            .legend_area_size(32)
            .background_style(WHITE.mix(0.9))
            .border_style(BLACK.mix(0.3))
            .draw()
            .ok()?;
        area.present().ok()
    })
}

/// A histogram on an axis of powers of ten down to 10⁻⁵: `bins` are left and right end and share of all values.
pub fn shares(labels: Labels, bins: &[(f32, f32, f32)]) -> Rgb {
    const LEAST: f32 = -5.0;
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(labels.title, ("sans-serif", 24))
            .margin(12)
            .margin_right(28)
            .x_label_area_size(58)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0f32..1.0, LEAST..0.0f32)
            .ok()?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(labels.x)
            .y_desc(labels.y)
            .y_labels(6)
            .label_style(("sans-serif", 16))
            .axis_desc_style(("sans-serif", 18))
            .x_label_formatter(&|x| format!("{x:.1}"))
            .y_label_formatter(&|y| format!("1e{y:.0}"))
            .draw()
            .ok()?;
        let bar = |&(left, right, share): &(f32, f32, f32)| {
            Rectangle::new([(left, LEAST), (right, share.log10().max(LEAST))], LINES[0].filled())
        };
        chart.draw_series(bins.iter().filter(|bin| bin.2 > 0.0).map(bar)).ok()?;
        area.present().ok()
    })
}

/// A small number in few digits.
fn short(value: f32) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() < 1e-3 {
        format!("{value:.1e}")
    } else {
        format!("{value:.4}").trim_end_matches('0').to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a pixel of about this colour is in the part of the image.
    fn holds(image: &Rgb, colour: RGBColor, columns: std::ops::Range<usize>, rows: std::ops::Range<usize>) -> bool {
        let near =
            |pixel: &[u8]| pixel.iter().zip([colour.0, colour.1, colour.2]).all(|(level, ink)| level.abs_diff(ink) < 8);
        rows.into_iter().any(|y| columns.clone().any(|x| near(&image.data[3 * (y * image.width + x)..][..3])))
    }

    #[test]
    fn bars_stand_over_their_tokens_between_title_and_axes() {
        let labels = Labels { title: "Title", x: "token", y: "attention" };
        let mut values = vec![0.0; 576];
        values[300..340].fill(0.5);
        let chart = bars(labels, &values, 24);
        let (left, right) = (110, 620);
        let at = |token: usize| left + token * (right - left) / 576;
        assert!(holds(&chart, LINES[0], at(300)..at(340), 150..500));
        assert!(!holds(&chart, LINES[0], left..at(280), 60..560));
        assert!(holds(&chart, BLACK, 200..440, 5..50), "the title");
        assert!(holds(&chart, BLACK, 0..40, 200..450), "the name of the axis, turned");
        assert!(holds(&chart, BLACK, 250..450, 600..640), "the name of the other one");
    }

    #[test]
    fn every_kind_of_chart_is_drawn() {
        let labels = Labels { title: "t", x: "x", y: "y" };
        let lines = [("one", vec![(0.0, 0.0), (100.0, 100.0)]), ("two", vec![(0.0, 50.0), (100.0, 100.0)])];
        let chart = curves(labels, &lines, (100.0, 100.0));
        assert!(holds(&chart, LINES[0], 100..600, 100..550) && holds(&chart, LINES[1], 100..600, 60..550));
        assert!(holds(&shares(labels, &[(0.2, 0.4, 0.01)]), LINES[0], 180..300, 300..500));
        assert_eq!(map("t", &[0.0, 1.0, 0.5, 0.2], Grid::image(2, 2)).width, SIDE);
    }
}
