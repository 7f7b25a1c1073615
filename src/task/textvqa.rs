//! TextVQA: questions about text in images, validation split, with OCR tokens in the question.
//!
//! A line of `llava_textvqa_val_v051_ocr.jsonl`: `{"question_id": "003a8ae2ef43b901", "image": "003a8ae2ef43b901.jpg",
//! "text": "What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL, …\nAnswer the question using a
//! single word or phrase.", …}`; `question_id` is the image's id.
//!
//! The label of this question, in `TextVQA_0.5.1_val.json`: `{"data": [{"image_id": "003a8ae2ef43b901", "question":
//! "what is the brand of this camera?", "answers": ["nous les gosses", … ten of them]}, …]}`, found by image and
//! question in lower case.
//!
//! Score: VQA accuracy over ten answers. Official scorer: LLaVA's `llava/eval/eval_textvqa.py`. lmms-eval's rule is the
//! same; its published figures are lower because it leaves the OCR tokens out of the question.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use serde_json::json as json_value;

use super::{
    Answer, Card, Protocol, Report, Sample, Task,
    evalai::{accuracy, most_said},
    ids::key,
    questions::{json, one_of, push, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::{SINGLE_WORD, capitalize},
};

/// The TextVQA benchmark.
#[derive(Clone, Copy, Debug)]
pub struct TextVqa;

const LABELS: [&str; 2] = ["TextVQA_0.5.1_val.json", "annotations.json"];
/// The number of people who answered each question.
const PEOPLE: usize = 10;

#[derive(Deserialize)]
struct Labels {
    data: Vec<Label>,
}

#[derive(Deserialize)]
struct Label {
    image_id: String,
    question: String,
    answers: Vec<String>,
}

impl Task for TextVqa {
    fn card(&self) -> Card {
        Card {
            name: "textvqa",
            about: "TextVQA: questions about text in images, with OCR tokens; VQA accuracy",
            data: "playground/data/eval/textvqa",
            headline: "acc",
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/textvqa", files: &["data/validation"], unpack }),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, "llava_textvqa_val_v051_ocr.jsonl", &["train_images"])
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let path = one_of(data, &LABELS)?;
        let labels: Labels = json(&path)?;
        let labels: HashMap<(&str, String), &Vec<String>> = labels
            .data
            .iter()
            .map(|label| ((label.image_id.as_str(), label.question.to_lowercase()), &label.answers))
            .collect();
        let mut marks = Marks::new("acc");
        for answer in answers {
            let (image, question) = (key(&answer.question_id), question(answer, &path)?);
            let people = labels
                .get(&(image.as_str(), question.clone()))
                .ok_or_else(|| Error::data(&path, format!("no label for `{question}` about {image}")))?;
            if people.len() != PEOPLE {
                let reason = format!("{} answers to `{question}` about {image}; expected {PEOPLE}", people.len());
                return Err(Error::data(&path, reason));
            }
            marks.mark(answer.worth(accuracy(&answer.text, people), &most_said(people)));
        }
        let mut notes = Vec::new();
        if answers.len() != labels.len() {
            notes.push(format!(
                "{} answers for {} labelled questions; the score is over the answers",
                answers.len(),
                labels.len()
            ));
        }
        let metrics = vec![("acc".to_owned(), marks.score().unwrap_or(0.0))];
        Ok(Report { benchmark: "textvqa", protocol, n: answers.len(), metrics, marks, notes })
    }
}

/// The question in a prompt, in lower case: the line that is neither OCR tokens nor the request for a word, or what
/// stands between `Question: ` and ` Short answer:` where the prompt starts with `OCR tokens: `.
fn question(answer: &Answer, path: &Path) -> Result<String, Error> {
    let lines: Vec<&str> = answer.prompt.split('\n').collect();
    let question = match lines[..] {
        _ if answer.prompt.starts_with("OCR tokens: ") => {
            let asked = answer.prompt.split_once("Question: ").and_then(|(_, rest)| rest.split_once(" Short answer:"));
            asked.map(|(question, _)| question)
        }
        [first, second, _] if answer.prompt.contains("Reference OCR token: ") => {
            Some(if first.starts_with("Reference OCR token:") { second } else { first })
        }
        [first, _] => Some(first),
        _ => None,
    };
    let question = question.ok_or_else(|| {
        Error::data(
            path,
            format!("`{}` is no TextVQA prompt: expected 2 or 3 lines", secateur_weights::printable(&answer.prompt)),
        )
    })?;
    Ok(question.to_lowercase())
}

/// Unpacks a row of the hub's data set: `image_id`, `image`, `question`, ten `answers`, `ocr_tokens`. LLaVA's file asks
/// the question capitalised.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let (id, question) = (row.name("image_id")?, row.text("question")?);
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let image = folder.image("train_images", &id, image)?;
    let tokens = row.texts("ocr_tokens")?.join(", ");
    let text = format!("{}\nReference OCR token: {tokens}{SINGLE_WORD}", capitalize(&question));
    let line = json_value!({"question_id": id, "image": image, "text": text, "category": "default"});
    folder.line("llava_textvqa_val_v051_ocr.jsonl", &line.to_string())?;
    let label = json_value!({"image_id": id, "question": question, "answers": row.texts("answers")?});
    push(&mut folder.json(LABELS[0])?["data"], label);
    Ok(())
}
