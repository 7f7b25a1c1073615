//! A folder of images as a video, in the order of their names, where numbers count as such: `frame2` comes before
//! `frame10`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{FrameRule, Frames, check_frame, distinct, frame_numbers, repeated};
use crate::{Error, image::decode};

/// Reads the frames that `wanted` names; only these are decoded. Files without an image's extension, and files in folders, are no
/// frames.
pub(super) fn read(path: &Path, wanted: FrameRule) -> Result<Frames, Error> {
    let fail = || Error::io(path, "the frames cannot be listed");
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail())? {
        let path = entry.map_err(fail())?.path();
        // Some systems leave files of their own beside each image (`._0001.jpg`).
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() && image::ImageFormat::from_path(&path).is_ok() {
            files.push(path);
        }
    }
    files.sort_by_cached_key(|path| order(path));
    if files.is_empty() {
        let reason = "there is no image in this folder; a folder of frames has one file for each".to_owned();
        return Err(Error::Video { path: path.to_owned(), reason });
    }
    of_files(&files, wanted)
}

/// Reads the frames that `wanted` names of those in `files`.
pub(super) fn of_files(files: &[PathBuf], wanted: FrameRule) -> Result<Frames, Error> {
    let numbers = frame_numbers(files.len(), wanted.of(files.len(), None));
    let frame = |number: usize| {
        let frame = decode(&files[number])?;
        check_frame(&files[number], frame.width as u64, frame.height as u64)?;
        Ok::<_, Error>(frame)
    };
    let frames = distinct(&numbers).into_iter().map(frame).collect::<Result<Vec<_>, _>>()?;
    let frames = repeated(&numbers, frames);
    Ok(Frames { numbers, frames, times: Vec::new(), seconds: None })
}

/// The key by which names are sorted: the parts of the name before its extension, then the whole name.
fn order(path: &Path) -> (Vec<(String, usize, String)>, OsString) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    (parts(&stem), path.file_name().unwrap_or_default().to_owned())
}

/// A name taken apart for comparison: text, the number behind it, and so on. Numbers may be of any length: without
/// leading zeros, the longer one is the larger.
fn parts(name: &str) -> Vec<(String, usize, String)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let (text, after) = rest.split_at(rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len()));
        let (digits, after) = after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len()));
        let number = digits.trim_start_matches('0');
        parts.push((text.to_owned(), number.len(), number.to_owned()));
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_as_numbers() {
        let sorted = |names: &[&'static str]| {
            let mut names = names.to_vec();
            names.sort_by_cached_key(|name| order(Path::new(name)));
            names
        };
        let found =
            sorted(&["f10.png", "f9.png", "f1.png", "f.png", "f2b.png", "f2.png", "a.png", "f010.png", "g1.png"]);
        let expected = ["a.png", "f.png", "f1.png", "f2.png", "f2b.png", "f9.png", "f010.png", "f10.png", "g1.png"];
        assert_eq!(found, expected);
        assert_eq!(sorted(&["001.png", "010.png", "002.png"]), ["001.png", "002.png", "010.png"]);
    }
}
