//! A small world of our own, for a model that anyone can run: images of coloured shapes, and questions about them.

mod checkpoint;
mod outside;
mod questions;
mod world;

pub use checkpoint::unpack;
pub use outside::{looks_drawn, unknown_words};
pub use questions::{Category, OPEN, Question, YES_OR_NO, ask, open_questions};
pub use world::{Colour, GRID, Object, PATCH, Region, SIDE, Scene, Shape};
