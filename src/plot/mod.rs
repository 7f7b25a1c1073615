//! What pictures for people have in common: text without system fonts, colours, charts, and putting them together.

mod canvas;
mod chart;
mod colour;
mod layout;
mod legend;
mod scatter;
mod text;

pub use chart::{Labels, bars, curves, map, shares};
pub use colour::Scale;
pub use layout::{captioned, columns, cut, heat, reach, stack};
pub use scatter::{Point, Scatter, Series};
pub use text::{draw, width};
