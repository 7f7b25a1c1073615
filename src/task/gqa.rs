//! GQA: short questions about scenes, balanced test-dev split.
//!
//! A line of `llava_gqa_testdev_balanced.jsonl`: `{"question_id": "201307251", "image": "n161313.jpg", "text": "Is it
//! overcast?\nAnswer the question using a single word or phrase.", "category": "default"}`
//!
//! Prediction: the answer without periods at its end, in lower case. Score: the share that equals the label.
//!
//! By lmms-eval's rule, both without ASCII punctuation and in lower case.
//!
//! Official scorer: GQA's `eval.py` behind LLaVA's `convert_gqa_for_eval.py`, whose file is the upload. The labels are
//! those of GQA itself, `testdev_balanced_questions.json` (`{"201307251": {"answer": "no", …}, …}`), in the folder,
//! `data/`, `questions/` or `data/questions/`; without them only the prediction file is written.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json as json_value};

use super::{
    Answer, Card, MustAnswer, Protocol, Report, Sample, Task,
    ids::ById,
    python_json,
    questions::{json as read_json, question_ids, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::{SINGLE_WORD, strip},
};

/// The GQA benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Gqa;

const QUESTIONS: &str = "llava_gqa_testdev_balanced.jsonl";
const LABELS: &str = "testdev_balanced_questions.json";

/// An entry of the prediction file.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(rename = "questionId")]
    question_id: &'a Value,
    prediction: String,
}

#[derive(Deserialize)]
struct Label {
    answer: String,
}

impl Task for Gqa {
    fn card(&self) -> Card {
        Card {
            name: "gqa",
            about: "GQA: short questions about scenes, test-dev balanced; accuracy",
            data: "playground/data/eval/gqa",
            headline: "acc",
            max_new_tokens: 128,
            hub: Some(DataSet {
                id: "lmms-lab-encoder/GQA",
                files: &["testdev_balanced_images/", "testdev_balanced_instructions/"],
                unpack,
            }),
            upload: Some("testdev_balanced_predictions.json"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, QUESTIONS, &["data/images", "images"])
    }

    fn uploaded(&self, data: &Path) -> Result<MustAnswer, Error> {
        question_ids(data, QUESTIONS)
    }

    fn upload(&self, _data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let rows: Vec<_> = answers
            .iter()
            .map(|answer| Row { question_id: &answer.question_id, prediction: prediction(answer) })
            .collect();
        Ok(python_json::compact(&rows))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let by_id = ById::new(answers);
        let places = ["", "data/", "questions/", "data/questions/"].map(|folder| format!("{folder}{LABELS}"));
        let Some(path) = places.iter().map(|name| data.join(name)).find(|path| path.is_file()) else {
            let mut notes = by_id.repeated();
            notes.push(format!("no accuracy: GQA's label file is not there; looked for {}", places.join(", ")));
            return Ok(Report {
                benchmark: "gqa",
                protocol,
                n: answers.len(),
                metrics: Vec::new(),
                marks: Marks::default(),
                notes,
            });
        };
        let labels: HashMap<String, Label> = read_json(&path)?;
        let mut marks = Marks::new("acc");
        for (id, answer) in by_id.in_order() {
            let label = labels
                .get(id)
                .ok_or_else(|| Error::data(&path, format!("no label for the question {id} of an answer")))?;
            let right = match protocol {
                Protocol::Llava => prediction(answer) == label.answer,
                Protocol::LmmsEval => plain(&answer.text) == plain(&label.answer),
            };
            marks.mark(answer.mark(right, &label.answer));
        }
        let (mut notes, n) = (by_id.repeated(), marks.answers.len());
        if n < labels.len() {
            notes.push(format!("{} of {} questions have no answer and are left out", labels.len() - n, labels.len()));
        }
        let metrics = vec![("acc".to_owned(), marks.score().unwrap_or(0.0))];
        Ok(Report { benchmark: "gqa", protocol, n, metrics, marks, notes })
    }
}

/// The text in lower case, without punctuation.
fn plain(text: &str) -> String {
    strip(text).to_lowercase().replace(|c: char| c.is_ascii_punctuation(), "")
}

fn prediction(answer: &Answer) -> String {
    answer.text.trim_end_matches('.').to_lowercase()
}

/// Unpacks a row of the hub's data set: an image has `id`, `image`; a question has `id`, `imageId`, `question`, `answer`.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.name("id")?;
    if !row.has("question") {
        let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
        folder.image("data/images", &format!("{id}.jpg"), image)?;
        return Ok(());
    }
    let text = format!("{}{SINGLE_WORD}", row.text("question")?);
    let image = folder.checked(format!("{}.jpg", row.name("imageId")?))?;
    let line = json_value!({"question_id": id, "image": image, "text": text, "category": "default"});
    folder.line(QUESTIONS, &line.to_string())?;
    folder.json("testdev_balanced_questions.json")?[&id] = json_value!({"answer": row.text("answer")?});
    Ok(())
}
