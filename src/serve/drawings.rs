//! Drawings for an answer: the kept patches of each image, and what the method ranks patches by.

use base64::{Engine, engine::general_purpose::STANDARD};
use secateur_backends::VlmBackend;

use super::api::Drawing;
use crate::{
    drawing::{HeatBy, arranged, drawn},
    image::{Rgb, kept_patches, png},
    model::{Model, Scores, VisualTokens},
    plot::{Scale, reach},
    video::Media,
};

/// Draws an image of which `kept` patches of each item stay, and the ranks of the patches by `scores`.
pub(super) fn draw<B: VlmBackend>(
    model: &Model<B>,
    media: &Media,
    visual: &VisualTokens<B>,
    kept: &[Vec<usize>],
    scores: Option<&Scores>,
) -> Drawing {
    let grid = visual.grid;
    let patches = |item: Rgb, crop: usize| kept_patches(&item, grid, kept.get(crop).map_or(&[], Vec::as_slice));
    let kept_drawing = url(&arranged(model, media, visual.tiles, patches));
    let heat = scores.map(|scores| {
        let (numbers, _) = HeatBy::Rank.numbers(scores);
        let ends = reach(numbers.iter().flatten());
        let heat = |item: Rgb, crop: usize| match (numbers.get(crop), kept.get(crop)) {
            (Some(numbers), Some(kept)) => drawn(&item, grid, numbers, ends, Scale::Viridis, kept),
            _ => item,
        };
        url(&arranged(model, media, visual.tiles, heat))
    });
    Drawing { kept: kept_drawing, scores: heat }
}

/// The image as a data URL.
fn url(image: &Rgb) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png(image)))
}
