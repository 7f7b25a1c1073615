//! The images of a run, looked through before its first question: a damaged one would end the run in the middle of a night.

use std::{collections::HashSet, path::Path};

use rayon::prelude::*;

use crate::{
    Error,
    image::{decode, decode_bytes, is_turned},
    task::{MediaSource, Sample},
    video::probe,
    words::count,
};

/// The images of a run, counted by [`look_through`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Images.
    pub images: usize,
    /// Of these, files that are stored another way up than people see them.
    pub turned: usize,
}

/// The most damaged images that an error names.
const NAMED: usize = 8;

/// Decodes every image of `samples` once; `on_image` is called after each.
///
/// # Errors
/// When some are damaged; the error names them.
pub fn look_through(samples: &[Sample], on_image: impl Fn() + Sync) -> Result<Looked, Error> {
    let images = distinct(samples);
    let look = |image: &&MediaSource| {
        let found = match image {
            MediaSource::File(path) => decode(path).map(|_| is_turned(path)),
            MediaSource::Inline { place, bytes } => decode_bytes(place, bytes).map(|_| false),
            MediaSource::Video(path) => probe(path).map(|()| false),
            MediaSource::Scene(_) => Ok(false),
        };
        on_image();
        found
    };
    let found: Vec<Result<bool, Error>> = images.par_iter().map(look).collect();
    let turned = found.iter().filter(|found| matches!(found, Ok(true))).count();
    let mut errors = found.into_iter().zip(&images).filter_map(|(found, image)| Some((found.err()?, image)));
    let Some((first, image)) = errors.next() else { return Ok(Looked { images: images.len(), turned }) };
    let others: Vec<String> = errors.map(|(_, image)| place(image).display().to_string()).collect();
    if others.is_empty() {
        return Err(first);
    }
    let listed = others[..others.len().min(NAMED)].join(", ");
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let reason = format!(
        "{} of {} cannot be read; this is the first: {first}; the others are {listed}{more}",
        others.len() + 1,
        if matches!(images[0], MediaSource::Video(_)) {
            count(images.len(), "video")
        } else {
            count(images.len(), "image")
        },
    );
    Err(Error::data(place(image), reason))
}

/// Every image once, in the order of the questions.
fn distinct(samples: &[Sample]) -> Vec<&MediaSource> {
    let mut seen = HashSet::new();
    let images = samples.iter().filter_map(|sample| sample.media.as_ref());
    let files = images.filter(|image| !matches!(image, MediaSource::Scene(_)));
    files.filter(|image| seen.insert(place(image))).collect()
}

fn place(image: &MediaSource) -> &Path {
    match image {
        MediaSource::File(path) | MediaSource::Video(path) | MediaSource::Inline { place: path, .. } => path,
        MediaSource::Scene(_) => Path::new(""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::image::{Rgb, png};

    #[test]
    fn the_first_damaged_image_is_named_and_no_other() {
        let whole = png(&Rgb { width: 2, height: 1, data: vec![9; 6] });
        let sample = |place: &str, bytes: &[u8]| Sample {
            question_id: place.into(),
            media: Some(MediaSource::Inline { place: place.into(), bytes: bytes.into() }),
            text: String::new(),
            suffix: "",
            clip_text: String::new(),
            category: String::new(),
            more: Map::new(),
        };
        // The name of the sound one is a part of the first damaged one's.
        let mut samples = vec![sample("1.png", &whole), sample("11.png", &whole[..40]), sample("2.png", b"nothing")];
        let error = look_through(&samples, || ()).unwrap_err().to_string();
        assert!(error.starts_with("11.png: 2 of 3 images cannot be read") && error.ends_with("2.png"), "{error}");
        samples.truncate(1);
        assert_eq!(look_through(&samples, || ()).unwrap(), Looked { images: 1, turned: 0 });
    }
}
