//! SEED-Bench: multiple-choice questions about images, and about the middle frames of videos.
//!
//! A line of `llava-seed-bench.jsonl`: `{"question_id": "101669", "image": "SEED-Bench-image/1454426_2591111986",
//! "text": "How many towels are in the image?\nA. One\nB. Two\nC. Three\nD. Four\nAnswer with the option's letter from
//! the given choices directly.", …}`
//!
//! The label of this question, in `SEED-Bench.json`: `{"question_type": {"Scene Understanding": 1, …}, "questions":
//! [{"question_id": "101669", "question_type_id": 5, "data_type": "image", "answer": "A", …}, …]}`
//!
//! Score: the share of answers that equal the letter, over all, per type, for images and for videos; an unanswered
//! question is wrong. By lmms-eval's rule the first character counts, in any case. Official scorer: LLaVA's
//! `scripts/convert_seed_for_submission.py`, which crashes where a type has answers of which none is right.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, Card, Protocol, Report, Sample, Task,
    ids::{ById, key},
    python_json,
    questions::{json as read_json, one_of, push, samples},
    scienceqa::CHOOSE,
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::strip,
};

/// The SEED-Bench benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Seed;

const LABELS: [&str; 2] = ["SEED-Bench.json", "annotation.json"];

/// A line of the upload.
#[derive(Serialize)]
struct Row<'a> {
    question_id: &'a Value,
    prediction: &'a str,
}

#[derive(Deserialize)]
struct Labels {
    question_type: BTreeMap<String, u32>,
    questions: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    question_id: Value,
    question_type_id: u32,
    data_type: String,
    answer: String,
}

impl Task for Seed {
    fn card(&self) -> Card {
        Card {
            name: "seed-bench",
            about: "SEED-Bench: multiple-choice questions about images and video frames; accuracy",
            data: "playground/data/eval/seed_bench",
            headline: "acc",
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/SEED-Bench", files: &["data/test"], unpack }),
            upload: Some("seed-bench.jsonl"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let mut samples = samples(data, "llava-seed-bench.jsonl", &["."])?;
        // The question file has no categories. Questions can be asked without the labels.
        let types: HashMap<String, u32> = match labels(data) {
            Ok(labels) => {
                labels.questions.iter().map(|label| (key(&label.question_id), label.question_type_id)).collect()
            }
            Err(_) => HashMap::new(),
        };
        for sample in &mut samples {
            sample.category = types.get(&key(&sample.question_id)).map(u32::to_string).unwrap_or_default();
        }
        Ok(samples)
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        let is_letter = ["A", "B", "C", "D"].iter().any(|letter| is_right(&answer.text, letter, protocol));
        (!is_letter).then_some("are no option letter as the rule reads it")
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let by_id = ById::new(answers);
        let mut bytes = Vec::new();
        for label in labels(data)?.questions {
            let answer = by_id.get(&label.question_id).ok_or_else(|| {
                Error::data(data, format!("question {} has no answer; the server takes whole runs", label.question_id))
            })?;
            bytes.extend(python_json::compact(&Row { question_id: &label.question_id, prediction: &answer.text }));
            bytes.push(b'\n');
        }
        Ok(bytes)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let Labels { question_type, questions } = labels(data)?;
        let by_id = ById::new(answers);
        let share = |of: &dyn Fn(&Label) -> bool| {
            let own: Vec<&Label> = questions.iter().filter(|label| of(label)).collect();
            let right = own.iter().filter(|label| {
                by_id.get(&label.question_id).is_some_and(|a| is_right(&a.text, &label.answer, protocol))
            });
            (!own.is_empty()).then(|| right.count() as f64 / own.len() as f64)
        };
        let mut marks = Marks::new("acc");
        for label in &questions {
            let right = by_id.get(&label.question_id).is_some_and(|a| is_right(&a.text, &label.answer, protocol));
            marks.mark(by_id.mark(&label.question_id, right, &label.answer));
        }
        let mut metrics = Vec::new();
        metrics.extend(share(&|_| true).map(|acc| ("acc".to_owned(), acc)));
        for kind in ["image", "video"] {
            metrics.extend(share(&|label| label.data_type == kind).map(|acc| (format!("acc_{kind}"), acc)));
        }
        let mut types: Vec<(&String, &u32)> = question_type.iter().collect();
        types.sort_by_key(|(_, id)| **id);
        for (name, id) in types {
            metrics.extend(share(&|label| label.question_type_id == *id).map(|acc| (name.clone(), acc)));
        }
        let notes = by_id.notes(questions.iter().map(|label| &label.question_id), "count as wrong");
        Ok(Report { benchmark: "seed-bench", protocol, n: questions.len(), metrics, marks, notes })
    }
}

fn is_right(text: &str, label: &str, protocol: Protocol) -> bool {
    match protocol {
        Protocol::Llava => text == label,
        Protocol::LmmsEval => {
            let first: String = strip(text).chars().take(1).collect();
            first.to_lowercase() == strip(label).to_lowercase()
        }
    }
}

fn labels(data: &Path) -> Result<Labels, Error> {
    read_json(&one_of(data, &LABELS)?)
}

/// Unpacks a row of the hub's data set: `question_id`, `question_type_id`, `data_type`, `question`, `choice_a` to
/// `choice_d`, `answer`, `image`. The last is a list of images, of which a video has several: LLaVA's folder has the
/// middle frame, so the middle one is taken.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.name("question_id")?;
    let images = row.images("image")?;
    let image = images.get(images.len() / 2).ok_or_else(|| row.error("no image"))?;
    let image = folder.image("pictures", &id, image)?;
    let mut text = row.text("question")?;
    for letter in ["a", "b", "c", "d"] {
        text.push_str(&format!("\n{}. {}", letter.to_uppercase(), row.text(&format!("choice_{letter}"))?));
    }
    text.push_str(CHOOSE);
    let asked = json!({"question_id": id, "image": format!("pictures/{image}"), "text": text, "category": "default"});
    folder.line("llava-seed-bench.jsonl", &asked.to_string())?;
    let kind = row.integer("question_type_id")?;
    let labels = folder.json(LABELS[0])?;
    let name = TYPES.get(usize::try_from(kind).unwrap_or_default().wrapping_sub(1));
    labels["question_type"][name.map_or_else(|| format!("type {kind}"), |name| (*name).to_owned())] = kind.into();
    let label = json!({"question_id": id, "question_type_id": kind, "data_type": row.text("data_type")?, "answer": row.text("answer")?});
    push(&mut labels["questions"], label);
    Ok(())
}

/// The names of the types, from 1 on; the hub's data set has their numbers only. The benchmark's first annotation file
/// had the names of 3 and 4 the other way round (its issue 28).
const TYPES: [&str; 12] = [
    "Scene Understanding",
    "Instance Identity",
    "Instance Location",
    "Instance Attributes",
    "Instances Counting",
    "Spatial Relation",
    "Instance Interaction",
    "Visual Reasoning",
    "Text Understanding",
    "Action Recognition",
    "Action Prediction",
    "Procedure Understanding",
];
