//! Pictures as people look at them: crops, tiles and frames in their places, without what was only padding.

use secateur_backends::VlmBackend;

use crate::{
    image::{Aspect, Rgb, Tiles, crops},
    model::{Llava, Pictures},
    plot::{columns, cut, stack},
    video::Media,
};

/// The picture, or every frame or crop in its place, each drawn by `draw` as a square of whole patches.
pub(super) fn arranged<B: VlmBackend>(
    model: &Llava<B>,
    media: &Media,
    tiles: Option<Tiles>,
    draw: impl Fn(Rgb, usize) -> Rgb,
) -> Rgb {
    let processor = model.processor();
    match (media, &model.config().pictures, tiles) {
        (Media::Video(video), ..) => {
            let frames = video.frames.iter().map(|frame| processor.square(frame, Aspect::Crop));
            let drawn: Vec<Rgb> = frames.enumerate().map(|(i, square)| draw(square, i)).collect();
            columns(&drawn, drawn.len())
        }
        (Media::Picture(picture), Pictures::Single(aspect), _) => {
            // Twice as large as the tower sees it.
            let side = 2 * processor.size;
            let drawn = draw(processor.square_of(picture, *aspect, side), 0);
            if *aspect == Aspect::Crop { drawn } else { without_padding(&drawn, picture) }
        }
        (Media::Picture(picture), Pictures::AnyRes { .. }, tiles) => {
            let none = Tiles { columns: 0, rows: 0 };
            let tiles = tiles.unwrap_or(none);
            let squares = crops(picture, processor, tiles);
            let mut drawn: Vec<Rgb> = squares.into_iter().enumerate().map(|(i, square)| draw(square, i)).collect();
            let parts = drawn.split_off(1);
            if parts.is_empty() {
                return drawn.swap_remove(0);
            }
            let rows: Vec<Rgb> = parts.chunks(tiles.columns).map(|row| columns(row, tiles.columns)).collect();
            columns(&[drawn.swap_remove(0), stack(&rows)], 2)
        }
    }
}

/// Whether the model sees padding around a picture, which is not drawn.
pub(super) fn is_padded<B: VlmBackend>(model: &Llava<B>, media: &Media) -> bool {
    let pads = model.config().pictures == Pictures::Single(Aspect::Pad);
    matches!(media, Media::Picture(picture) if pads && picture.width != picture.height)
}

/// How many of the kept patches hold nothing but padding.
pub(super) fn in_padding<B: VlmBackend>(model: &Llava<B>, media: &Media, kept: &[Vec<usize>]) -> usize {
    let Media::Picture(picture) = media else { return 0 };
    if !is_padded(model, media) {
        return 0;
    }
    let (side, longer) = (model.config().vision.patches().isqrt(), picture.width.max(picture.height));
    // In units in which both a pixel and a patch have whole lengths.
    let shows = |place: usize, length: usize| {
        let start = (longer - length) / 2;
        (place + 1) * longer > start * side && place * longer < (start + length) * side
    };
    let is_hidden = |&&patch: &&usize| !shows(patch % side, picture.width) || !shows(patch / side, picture.height);
    kept.iter().flatten().filter(is_hidden).count()
}

/// A padded square without its padding.
fn without_padding(square: &Rgb, picture: &Rgb) -> Rgb {
    // LLaVA floors the padding in the picture's own pixels.
    let longer = picture.width.max(picture.height);
    let scaled = |length: usize| (square.width * length) / longer;
    let (left, top) = (scaled((longer - picture.width) / 2), scaled((longer - picture.height) / 2));
    let whole = |length: usize| (square.width * length).div_ceil(longer);
    cut(square, (left, top), (whole(picture.width), whole(picture.height)))
}
