//! A folder of pictures as a video, in the order of their names.

use std::path::{Path, PathBuf};

use super::{distinct, frame_numbers, repeated};
use crate::{
    Error,
    image::{Rgb, decode},
};

/// Only the wanted frames are decoded. Files without a picture's extension, and what is in folders, are no frames.
pub(super) fn read(path: &Path, wanted: usize) -> Result<(Vec<usize>, Vec<Rgb>), Error> {
    let fail = || Error::io(path, "the frames cannot be listed");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail())? {
        let path = entry.map_err(fail())?.path();
        if path.is_file() && image::ImageFormat::from_path(&path).is_ok() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = "there is no picture in this folder; a folder of frames has one file for each".to_owned();
        return Err(Error::Video { path: path.to_owned(), reason });
    }
    let numbers = frame_numbers(files.len(), wanted);
    let frames = distinct(&numbers).into_iter().map(|number| decode(&files[number])).collect::<Result<Vec<_>, _>>()?;
    Ok((numbers.clone(), repeated(&numbers, &frames)))
}
