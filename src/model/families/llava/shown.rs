//! Crops and frames as people look at them: larger, and in their places.

use super::Images;
use crate::{
    image::{Aspect, ClipProcessor, Rgb, Tiles, crops},
    model::Shown,
    video::Media,
};

/// The crops of an image, or the frames of a video, that LLaVA's tower reads, as images for people.
pub(in crate::model::families) fn shown(
    media: &Media,
    tiles: Option<Tiles>,
    processor: &ClipProcessor,
    images: &Images,
) -> Shown {
    let row = |items: Vec<Rgb>| Shown { items, columns: None, unpadded: None };
    match (media, images) {
        (Media::Video(video), _) => row(video.frames.iter().map(|frame| processor.square(frame, Aspect::Crop)).collect()),
        (Media::Image(image), Images::Single(aspect)) => {
            // The square is twice as large as the tower reads it.
            let square = processor.square_of(image, *aspect, 2 * processor.size);
            let unpadded = (*aspect == Aspect::Pad && image.width != image.height).then(|| unpadded(&square, image));
            Shown { items: vec![square], columns: None, unpadded }
        }
        (Media::Image(image), Images::AnyRes { .. }) => {
            let tiles = tiles.unwrap_or(Tiles { columns: 0, rows: 0 });
            Shown { items: crops(image, processor, tiles), columns: Some(tiles.columns), unpadded: None }
        }
    }
}

/// The part of a padded square that is no padding: left and top, width and height.
fn unpadded(square: &Rgb, image: &Rgb) -> [(usize, usize); 2] {
    // LLaVA floors the padding in the image's own pixels.
    let longer = image.width.max(image.height);
    let scaled = |length: usize| (square.width * length) / longer;
    let (left, top) = (scaled((longer - image.width) / 2), scaled((longer - image.height) / 2));
    let whole = |length: usize| (square.width * length).div_ceil(longer);
    [(left, top), (whole(image.width), whole(image.height))]
}
