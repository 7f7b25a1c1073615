//! The pictures of a run, looked through before its first question: a damaged one would end the run in the middle of a night.

use std::{collections::HashSet, path::Path};

use rayon::prelude::*;

use crate::{
    Error,
    image::{decode, decode_bytes, is_turned},
    task::{Picture, Sample},
    video::probe,
    words::count,
};

/// The pictures of a run, counted by [`look_through`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Pictures.
    pub pictures: usize,
    /// Of these, files that are stored another way up than people see them.
    pub turned: usize,
}

/// The most damaged pictures that an error names.
const NAMED: usize = 8;

/// Decodes every picture of `samples` once; `on_picture` is called after each.
///
/// # Errors
/// When some are damaged; the error names them.
pub fn look_through(samples: &[Sample], on_picture: impl Fn() + Sync) -> Result<Looked, Error> {
    let pictures = distinct(samples);
    let look = |picture: &&Picture| {
        let found = match picture {
            Picture::File(path) => decode(path).map(|_| is_turned(path)),
            Picture::Inline { place, bytes } => decode_bytes(place, bytes).map(|_| false),
            Picture::Video(path) => probe(path).map(|()| false),
            Picture::Scene(_) => Ok(false),
        };
        on_picture();
        found
    };
    let found: Vec<Result<bool, Error>> = pictures.par_iter().map(look).collect();
    let turned = found.iter().filter(|found| matches!(found, Ok(true))).count();
    let mut errors = found.into_iter().zip(&pictures).filter_map(|(found, picture)| Some((found.err()?, picture)));
    let Some((first, picture)) = errors.next() else { return Ok(Looked { pictures: pictures.len(), turned }) };
    let others: Vec<String> = errors.map(|(_, picture)| place(picture).display().to_string()).collect();
    if others.is_empty() {
        return Err(first);
    }
    let listed = others[..others.len().min(NAMED)].join(", ");
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let reason = format!(
        "{} of {} cannot be read; this is the first: {first}; the others are {listed}{more}",
        others.len() + 1,
        if matches!(pictures[0], Picture::Video(_)) {
            count(pictures.len(), "video")
        } else {
            count(pictures.len(), "image")
        },
    );
    Err(Error::data(place(picture), reason))
}

/// Every picture once, in the order of the questions.
fn distinct(samples: &[Sample]) -> Vec<&Picture> {
    let mut seen = HashSet::new();
    let pictures = samples.iter().filter_map(|sample| sample.picture.as_ref());
    let files = pictures.filter(|picture| !matches!(picture, Picture::Scene(_)));
    files.filter(|picture| seen.insert(place(picture))).collect()
}

fn place(picture: &Picture) -> &Path {
    match picture {
        Picture::File(path) | Picture::Video(path) | Picture::Inline { place: path, .. } => path,
        Picture::Scene(_) => Path::new(""),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;
    use crate::image::{Rgb, png};

    #[test]
    fn the_first_damaged_picture_is_named_and_no_other() {
        let whole = png(&Rgb { width: 2, height: 1, data: vec![9; 6] });
        let sample = |place: &str, bytes: &[u8]| Sample {
            question_id: place.into(),
            picture: Some(Picture::Inline { place: place.into(), bytes: bytes.into() }),
            text: String::new(),
            suffix: "",
            clip_text: String::new(),
            more: Map::new(),
        };
        // The name of the sound one is a part of the first damaged one's.
        let mut samples = vec![sample("1.png", &whole), sample("11.png", &whole[..40]), sample("2.png", b"nothing")];
        let error = look_through(&samples, || ()).unwrap_err().to_string();
        assert!(error.starts_with("11.png: 2 of 3 images cannot be read") && error.ends_with("2.png"), "{error}");
        samples.truncate(1);
        assert_eq!(look_through(&samples, || ()).unwrap(), Looked { pictures: 1, turned: 0 });
    }
}
