//! The style that charts in pages have in common.

use plotters::style::RGBColor;
use plotters_backend::FontFamily;

/// The width of a chart, which is small, so that its text is large enough on a phone.
pub(super) const WIDTH: u32 = 420;
/// The font of charts.
pub(super) const FONT: FontFamily<'static> = FontFamily::SansSerif;
/// The colour of text and axes.
pub(super) const INK: RGBColor = RGBColor(17, 17, 17);
