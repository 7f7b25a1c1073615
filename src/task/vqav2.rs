//! VQAv2: questions about COCO images, test-dev.
//!
//! A line of `llava_vqav2_mscoco_test-dev2015.jsonl`: `{"question_id": 262144005, "image":
//! "COCO_test2015_000000262144.jpg", "text": "Is the ball flying towards the batter?\nAnswer the question using a
//! single word or phrase.", …}`
//!
//! Scored by the EvalAI server. Its upload holds every question of `llava_vqav2_mscoco_test2015.jsonl`, answers
//! normalised, and "" where a question (most of them: they are not in test-dev) was not asked.
//!
//! Official converter: LLaVA's `scripts/convert_vqav2_for_submission.py`.
//!
//! By lmms-eval's rule: VQA accuracy against VQAv2's own annotations (`v2_mscoco_val2014_annotations.json`:
//! `{"annotations": [{"question_id": 262148000, "answers": [{"answer": "down", …}, …], …}, …]}`), for answers to
//! validation questions; its normalisation covers punctuation, numbers and articles only.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Card, MustAnswer, Protocol, Report, Sample, Task,
    evalai::{most_said, parts_accuracy},
    ids::{ById, key},
    normalise, python_json,
    questions::{file, json as read_json, lines, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::SINGLE_WORD,
};

/// The VQAv2 benchmark.
#[derive(Clone, Copy, Debug)]
pub struct VqaV2;

const QUESTIONS: &str = "llava_vqav2_mscoco_test-dev2015.jsonl";

/// An entry of the upload.
#[derive(Serialize)]
struct Row<'a> {
    question_id: &'a Value,
    answer: String,
}

#[derive(Deserialize)]
struct Id {
    question_id: Value,
}

impl Task for VqaV2 {
    fn card(&self) -> Card {
        Card {
            name: "vqav2",
            about: "VQAv2: questions about COCO images, test-dev; a file for the EvalAI server",
            data: "playground/data/eval/vqav2",
            headline: "acc",
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/VQAv2", files: &["data/testdev"], unpack }),
            upload: Some("vqav2_upload.json"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, QUESTIONS, &["test2015"])
    }

    /// Skips lines that are no JSON, as the official converter does.
    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        Answer::read_json_lines(path)
    }

    /// The questions of test-dev: most of the others are not asked. Without the file of test-dev nothing is checked.
    fn uploaded(&self, data: &Path) -> Result<MustAnswer, Error> {
        let path = data.join(QUESTIONS);
        if !path.is_file() {
            return Ok(MustAnswer::Checked);
        }
        let questions: Vec<Id> = lines(&path, "question")?;
        Ok(MustAnswer::Ids(questions.into_iter().map(|question| question.question_id).collect()))
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let ids: Vec<Id> = lines(&file(data, "llava_vqav2_mscoco_test2015.jsonl")?, "question")?;
        let by_id = ById::new(answers);
        let rows: Vec<_> = ids
            .iter()
            .map(|Id { question_id }| {
                let answer = by_id.get(question_id).map(|answer| normalise(&answer.text)).unwrap_or_default();
                Row { question_id, answer }
            })
            .collect();
        Ok(python_json::compact(&rows))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        if protocol == Protocol::LmmsEval {
            return validation(data, answers);
        }
        let mut notes = ById::new(answers).repeated();
        notes.push("scored by the EvalAI server".to_owned());
        let (metrics, marks) = (Vec::new(), Marks::default());
        Ok(Report { benchmark: "vqav2", protocol, n: answers.len(), metrics, marks, notes })
    }
}

#[derive(Deserialize)]
struct Annotations {
    annotations: Vec<Annotation>,
}

#[derive(Deserialize)]
struct Annotation {
    question_id: Value,
    answers: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    answer: String,
}

fn validation(data: &Path, answers: &[Answer]) -> Result<Report, Error> {
    let path = file(data, "v2_mscoco_val2014_annotations.json")?;
    let Annotations { annotations } = read_json(&path)?;
    let people =
        |label: Annotation| (key(&label.question_id), label.answers.into_iter().map(|said| said.answer).collect());
    let labels: HashMap<String, Vec<String>> = annotations.into_iter().map(people).collect();
    let by_id = ById::new(answers);
    let mut marks = Marks::new("acc");
    for (id, answer) in by_id.in_order() {
        let people = labels.get(id);
        let people =
            people.ok_or_else(|| Error::data(&path, format!("no label for the question {id} of an answer")))?;
        marks.mark(answer.worth(parts_accuracy(&answer.text, people), &most_said(people)));
    }
    let (mut notes, n) = (by_id.repeated(), marks.answers.len());
    if n < labels.len() {
        notes.push(format!("{} of {} questions have no answer and are left out", labels.len() - n, labels.len()));
    }
    let metrics = vec![("acc".to_owned(), marks.score().unwrap_or(0.0))];
    Ok(Report { benchmark: "vqav2", protocol: Protocol::LmmsEval, n, metrics, marks, notes })
}

/// Unpacks a row of the hub's data set: `question_id`, `image_id`, `image`, `question`. The server wants every question
/// of the test split; questions that are not in test-dev count as answered with nothing, and are not known here.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.integer("question_id")?;
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let image = folder.image("test2015", &format!("COCO_test2015_{:012}", row.integer("image_id")?), image)?;
    let text = format!("{}{SINGLE_WORD}", row.text("question")?);
    let line = json!({"question_id": id, "image": image, "text": text, "category": "default"}).to_string();
    folder.line(QUESTIONS, &line)?;
    folder.line("llava_vqav2_mscoco_test2015.jsonl", &line)
}
