//! VizWiz: questions that blind people asked about their photographs.
//!
//! A line of `llava_test.jsonl`: `{"question_id": 1, "image": "VizWiz_test_00000001.jpg", "text": "What is this?\nWhen
//! the provided information is insufficient, respond with 'Unanswerable'.\nAnswer the question using a single word or
//! phrase.", "category": "default"}`
//!
//! Scored by the EvalAI server; answers are normalised. Official converter: LLaVA's
//! `scripts/convert_vizwiz_for_submission.py`, which refuses a run with unanswered questions too.
//!
//! By lmms-eval's rule: VQA accuracy, for images whose labels are in VizWiz's `val.json` (`[{"image":
//! "VizWiz_val_00000000.jpg", "answers": [{"answer": "basil", …}, …], …}, …]`); recent papers report that split.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Answer, Card, Protocol, Report, Sample, Task,
    evalai::{accuracy, most_said},
    ids::ById,
    normalise, python_json,
    questions::{Question, file, json as read_json, lines, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::{SINGLE_WORD, capitalize},
};

/// The VizWiz benchmark.
#[derive(Clone, Copy, Debug)]
pub struct VizWiz;

const QUESTIONS: &str = "llava_test.jsonl";

/// An entry of the upload.
#[derive(Serialize)]
struct Row<'a> {
    image: &'a str,
    answer: String,
}

impl Task for VizWiz {
    fn card(&self) -> Card {
        Card {
            name: "vizwiz",
            about: "VizWiz: questions of blind people about their photographs; a file for the EvalAI server",
            data: "playground/data/eval/vizwiz",
            headline: "acc",
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/VizWiz-VQA", files: &["data/test"], unpack }),
            upload: Some("vizwiz_upload.json"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, QUESTIONS, &["test"])
    }

    /// Skips lines that are no JSON, as the official converter does.
    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        Answer::read_json_lines(path)
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let questions: Vec<Question> = lines(&file(data, QUESTIONS)?, "question")?;
        let by_id = ById::new(answers);
        let rows = questions.iter().map(|question| {
            let answer = by_id.get(&question.question_id).ok_or_else(|| {
                Error::data(
                    data,
                    format!("question {} has no answer; the server takes whole runs", question.question_id),
                )
            })?;
            Ok(Row { image: &question.image, answer: normalise(&answer.text) })
        });
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        Ok(python_json::compact(&rows))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        if protocol == Protocol::LmmsEval {
            return validation(data, answers);
        }
        let mut notes = ById::new(answers).repeated();
        notes.push("scored by the EvalAI server".to_owned());
        let (metrics, marks) = (Vec::new(), Marks::default());
        Ok(Report { benchmark: "vizwiz", protocol, n: answers.len(), metrics, marks, notes })
    }
}

#[derive(Deserialize)]
struct Label {
    image: String,
    answers: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    answer: String,
}

fn validation(data: &Path, answers: &[Answer]) -> Result<Report, Error> {
    let path = file(data, "val.json")?;
    let labels: Vec<Label> = read_json(&path)?;
    let people = |label: Label| (label.image, label.answers.into_iter().map(|said| said.answer).collect());
    let labels: HashMap<String, Vec<String>> = labels.into_iter().map(people).collect();
    let questions: Vec<Question> = lines(&file(data, QUESTIONS)?, "question")?;
    let by_id = ById::new(answers);
    let mut marks = Marks::new("acc");
    for question in &questions {
        let Some(answer) = by_id.get(&question.question_id) else { continue };
        let people = labels.get(&question.image);
        let people = people.ok_or_else(|| Error::data(&path, format!("no label for the image {}", question.image)))?;
        marks.mark(answer.worth(accuracy(&answer.text, people), &most_said(people)));
    }
    let notes = by_id.notes(questions.iter().map(|question| &question.question_id), "are left out");
    let (n, metrics) = (marks.answers.len(), vec![("acc".to_owned(), marks.score().unwrap_or(0.0))]);
    Ok(Report { benchmark: "vizwiz", protocol: Protocol::LmmsEval, n, metrics, marks, notes })
}

/// Unpacks a row of the hub's data set: `question_id`, `image`, `question`. The official image,
/// `VizWiz_test_00000000.jpg`, is named after the question; the server knows it by that name, whatever the format of
/// the hub's image. LLaVA's file asks the question capitalised.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.name("question_id")?;
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let name = if id.ends_with(".jpg") { id.clone() } else { format!("{id}.jpg") };
    let image = folder.image("test", &name, image)?;
    let text = format!("{}{UNANSWERABLE}{SINGLE_WORD}", capitalize(&row.text("question")?));
    let line = json!({"question_id": id, "image": image, "text": text, "category": "default"});
    folder.line("llava_test.jsonl", &line.to_string())
}

const UNANSWERABLE: &str = "\nWhen the provided information is insufficient, respond with 'Unanswerable'.";
