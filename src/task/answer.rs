//! A line of an answers file, in LLaVA's format.

use std::path::Path;

use secateur_weights::parse_json;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{Sample, ids::key};
use crate::{
    Error,
    files::{Object, from_value, objects, parse_objects, read_text},
    hash::fnv1a,
    statistics::Mark,
};

/// One answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Answer {
    /// The question's id.
    pub question_id: Value,
    /// The question with its suffix.
    #[serde(default)]
    pub prompt: String,
    /// The model's answer.
    pub text: String,
    /// The answer's id, unique in the file. This field and the next two are never read: other values there do no harm.
    #[serde(default, deserialize_with = "lenient")]
    pub answer_id: String,
    /// The model that answered.
    #[serde(default, deserialize_with = "lenient")]
    pub model_id: String,
    /// Metadata, empty in LLaVA's own files.
    #[serde(default, deserialize_with = "lenient")]
    pub metadata: Map<String, Value>,
    /// The other fields of the line, which a benchmark may have.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Reads a value of the expected type; the default for a value of another type.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).unwrap_or_default())
}

impl Answer {
    /// An answer to `sample`. Its id is a hash of question, answer and model, so that equal runs give equal files.
    pub fn new(sample: &Sample, text: String, model: &str) -> Self {
        let asked = format!("{}\n{}\n{text}\n{model}", sample.question_id, sample.text);
        Self {
            question_id: sample.question_id.clone(),
            prompt: sample.text.clone(),
            text,
            answer_id: format!("{:016x}", fnv1a(asked.as_bytes())),
            model_id: model.to_owned(),
            metadata: Map::new(),
            more: sample.more.clone(),
        }
    }

    /// Whether it answers this question.
    pub fn answers(&self, sample: &Sample) -> bool {
        self.question_id == sample.question_id && self.prompt == sample.text
    }

    /// The mark of this answer, which is right or wrong.
    pub fn mark(&self, is_right: bool, right: &str) -> Mark {
        self.worth(if is_right { 1.0 } else { 0.0 }, right)
    }

    /// The mark of this answer, which is worth `credit`, from 0 to 1; `right` is the right answer.
    pub fn worth(&self, credit: f64, right: &str) -> Mark {
        Mark { id: key(&self.question_id), prompt: self.prompt.clone(), credit, right: right.to_owned() }
    }

    /// The answer as a line of JSON, with its newline.
    ///
    /// # Errors
    /// When JSON has no form for one of its values.
    pub fn line(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// All answers of a file, which holds one object a line, indented objects, or one list.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no answer (the error names it), or there is no answer.
    pub fn read_all(path: &Path) -> Result<Vec<Self>, Error> {
        let text = read_text(path, "the answers cannot be read")?;
        Self::not_none(path, parse_objects(&text, "answer").map_err(|reason| Error::data(path, reason))?)
    }

    /// The answers of a file, and the number of lines that are no JSON, which some of LLaVA's converters skip.
    ///
    /// # Errors
    /// When the file cannot be read, a line of JSON is no answer, or there is no answer.
    pub fn read_json_lines(path: &Path) -> Result<(Vec<Self>, usize), Error> {
        let text = read_text(path, "the answers cannot be read")?;
        let objects = objects(&text).map_err(|reason| Error::data(path, reason))?;
        let broken = objects.iter().filter(|object| object.value.is_err()).count();
        let answers = objects.into_iter().filter_map(|Object { place, value }| {
            let answer = from_value(value.ok()?);
            Some(answer.map_err(|reason| Error::data(path, format!("{place} is no answer: {reason}"))))
        });
        Ok((Self::not_none(path, answers.collect::<Result<_, _>>()?)?, broken))
    }

    fn not_none(path: &Path, answers: Vec<Self>) -> Result<Vec<Self>, Error> {
        if answers.is_empty() { Err(Error::data(path, "there is no answer in this file")) } else { Ok(answers) }
    }

    /// All answers of a file's bytes; empty lines are skipped.
    ///
    /// # Errors
    /// When a line is no answer; the error names the line.
    pub fn parse_all(path: &Path, bytes: &[u8]) -> Result<Vec<Self>, Error> {
        lines(bytes).map(|(i, line)| Self::parse(path, i, line)).collect()
    }

    fn parse(path: &Path, number: usize, line: &[u8]) -> Result<Self, Error> {
        let text =
            std::str::from_utf8(line).map_err(|_| Error::data(path, format!("line {number} is not in UTF-8")))?;
        parse_json(text).map_err(|reason| Error::data(path, format!("line {number} is no answer: {reason}")))
    }
}

/// The lines that are not empty, and their numbers, counted from 1.
fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = bytes.split(|&byte| byte == b'\n').enumerate();
    lines.filter(|(_, line)| !line.trim_ascii().is_empty()).map(|(i, line)| (i + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_line_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("answers.jsonl");
        let good = r#"{"question_id": 1, "text": "x"}"#;
        std::fs::write(&path, format!("broken\n\n{good}\n")).unwrap();
        let (answers, broken) = Answer::read_json_lines(&path).unwrap();
        assert_eq!((answers.len(), broken), (1, 1));
        std::fs::write(&path, format!("broken\n\n{good}\n{{}}\n")).unwrap();
        let error = Answer::read_json_lines(&path).unwrap_err().to_string();
        assert!(error.contains("line 4 is no answer"), "{error}");
    }
}
