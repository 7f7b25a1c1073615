//! Images for people: text without system fonts, colours, charts, and their layout.

mod canvas;
mod chart;
mod colour;
mod layout;
mod legend;
mod scatter;
mod style;
mod text;

pub use chart::{Labels, bars, curves, map, shares};
pub use colour::Scale;
pub use layout::{captioned, columns, cut, heat, reach, stack};
pub use scatter::{Point, Scatter, Series};
pub use text::{draw, width};
