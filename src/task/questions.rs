//! LLaVA's question files: a JSON object a line, `{"question_id", "image", "text", "category"}`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{MediaSource, MustAnswer, Sample};
use crate::{
    Error,
    files::{read_json, read_objects},
    text::clip_question,
};

/// A line of a question file.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Question {
    pub(super) question_id: Value,
    pub(super) image: String,
    pub(super) text: String,
    #[serde(default)]
    pub(super) category: String,
}

/// The objects of a file that has one a line; see [`read_objects`] for what else is read.
pub(super) fn lines<T: DeserializeOwned>(path: &Path, what: &str) -> Result<Vec<T>, Error> {
    read_objects(path, what)
}

/// The ids of the questions in the file `name`. Answers can be scored without this file.
pub(super) fn question_ids(data: &Path, name: &'static str) -> Result<MustAnswer, Error> {
    if !data.join(name).is_file() {
        return Ok(MustAnswer::Unlisted(name));
    }
    let questions: Vec<Question> = lines(&data.join(name), "question")?;
    Ok(MustAnswer::Ids(questions.into_iter().map(|question| question.question_id).collect()))
}

/// A whole JSON file.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    read_json(path, "cannot be read")
}

/// Adds an item to a JSON list; null becomes a list first.
pub(super) fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// The file called `name` in `data`; the error says what to do.
pub(super) fn file(data: &Path, name: &str) -> Result<PathBuf, Error> {
    one_of(data, &[name])
}

/// The first of the files `names` that is in `data`: some copies of a folder have other names for one.
pub(super) fn one_of(data: &Path, names: &[&str]) -> Result<PathBuf, Error> {
    let there = names.iter().map(|name| data.join(name)).find(|path| path.is_file());
    there.ok_or_else(|| expected(data, &names.join(" or "), "here"))
}

/// The first of the folders `names` that is in `data`.
pub(super) fn folder(data: &Path, names: &[&str], what: &str) -> Result<PathBuf, Error> {
    let there = names.iter().map(|name| data.join(name)).find(|folder| folder.is_dir());
    there.ok_or_else(|| expected(data, what, &format!("in {}", names.join(" or "))))
}

fn expected(data: &Path, what: &str, place: &str) -> Error {
    Error::data(data, format!("expected {what} {place}, as in the benchmark's own folder; --data names the folder"))
}

/// A question about an image, as `model_vqa_loader` asks it.
pub(super) fn sample(question_id: Value, image: PathBuf, text: String) -> Sample {
    let clip_text = clip_question(&text);
    Sample {
        question_id,
        media: Some(MediaSource::File(image)),
        text,
        suffix: "",
        clip_text,
        category: String::new(),
        more: Map::new(),
    }
}

/// The samples of the question file `name`, with images in the first of the folders `images` that is there.
pub(super) fn samples(data: &Path, name: &str, images: &[&str]) -> Result<Vec<Sample>, Error> {
    samples_of(data, &file(data, name)?, images)
}

/// The samples of the question file at `path`, with images in the first of the folders `images` that is there.
pub(super) fn samples_of(data: &Path, path: &Path, images: &[&str]) -> Result<Vec<Sample>, Error> {
    let questions: Vec<Question> = lines(path, "question")?;
    let folder = folder(data, images, "the images")?;
    let read = |q: Question| Sample { category: q.category, ..sample(q.question_id, folder.join(&q.image), q.text) };
    Ok(questions.into_iter().map(read).collect())
}
