//! Images as people look at them: crops, tiles and frames in their places, without padding.

use secateur_backends::VlmBackend;

use crate::{
    image::{Rgb, Tiles},
    model::{Model, Shown},
    plot::{captioned, columns, cut, stack},
    video::Media,
};

/// The image, or every crop in its place, or every frame under its time; `draw` draws each as a whole number of patches.
pub(crate) fn arranged<B: VlmBackend>(
    model: &Model<B>,
    media: &Media,
    tiles: Option<Tiles>,
    draw: impl Fn(Rgb, usize) -> Rgb,
) -> Rgb {
    let Shown { items, columns: wide, unpadded } = model.vlm().shown(media, tiles);
    let count = items.len();
    let timed = |frame: Rgb, i: usize| match media {
        Media::Video(video) => {
            // An item may be several frames, and is shown by the first.
            let first = i * video.frames.len().div_ceil(count);
            match video.times.get(first) {
                Some(time) => captioned(&frame, &format!("{:.1} s", time.as_secs_f64())),
                None => frame,
            }
        }
        Media::Image(_) => frame,
    };
    let mut drawn: Vec<Rgb> = items.into_iter().enumerate().map(|(i, item)| timed(draw(item, i), i)).collect();
    if let Some([at, size]) = unpadded {
        return cut(&drawn[0], at, size);
    }
    let Some(wide) = wide else { return columns(&drawn, drawn.len()) };
    let parts = drawn.split_off(1);
    if parts.is_empty() {
        return drawn.swap_remove(0);
    }
    let rows: Vec<Rgb> = parts.chunks(wide).map(|row| columns(row, wide)).collect();
    columns(&[drawn.swap_remove(0), stack(&rows)], 2)
}

/// The image with its padding; frames and crops as [`arranged`] puts them.
pub(crate) fn arranged_whole<B: VlmBackend>(model: &Model<B>, media: &Media, draw: impl Fn(Rgb, usize) -> Rgb) -> Rgb {
    let Shown { mut items, .. } = model.vlm().shown(media, None);
    draw(items.swap_remove(0), 0)
}

/// Whether the model sees padding around an image, which is not drawn.
pub(crate) fn is_padded<B: VlmBackend>(model: &Model<B>, media: &Media) -> bool {
    model.vlm().shown(media, None).unpadded.is_some()
}

/// The number of kept patches that hold nothing but padding.
pub(crate) fn in_padding<B: VlmBackend>(model: &Model<B>, media: &Media, kept: &[Vec<usize>]) -> usize {
    let Media::Image(image) = media else { return 0 };
    if !is_padded(model, media) {
        return 0;
    }
    let (grid, longer) = (model.grid(), image.width.max(image.height));
    // The units are such that both a pixel and a patch have whole lengths.
    let shows = |place: usize, side: usize, length: usize| {
        let start = (longer - length) / 2;
        (place + 1) * longer > start * side && place * longer < (start + length) * side
    };
    let is_hidden = |&&patch: &&usize| {
        let (row, column) = (patch / grid.columns, patch % grid.columns);
        !shows(column, grid.columns, image.width) || !shows(row, grid.rows, image.height)
    };
    kept.iter().flatten().filter(is_hidden).count()
}
