//! GQA: short questions about scenes, balanced test-dev split.
//!
//! A line of `llava_gqa_testdev_balanced.jsonl`: `{"question_id": "201307251", "image": "n161313.jpg", "text": "Is it
//! overcast?\nAnswer the question using a single word or phrase.", "category": "default"}`
//!
//! Prediction: the answer without periods at its end, in lower case. Score: the share that equals the label.
//!
//! Official scorer: GQA's `eval.py` behind LLaVA's `convert_gqa_for_eval.py`, whose file is the upload. The labels are
//! those of GQA itself, `testdev_balanced_questions.json` (`{"201307251": {"answer": "no", …}, …}`), in the folder or in
//! `data/`; without them only the prediction file is written.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Answer, Protocol, Report, Sample, Task, Upload,
    ids::{ById, key},
    llava_only, python_json,
    questions::{json as read_json, samples},
};
use crate::Error;

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Gqa;

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
    fn name(&self) -> &'static str {
        "gqa"
    }

    fn about(&self) -> &'static str {
        "GQA: short questions about scenes, test-dev balanced; accuracy"
    }

    fn default_data(&self) -> &'static str {
        "playground/data/eval/gqa"
    }

    fn max_new_tokens(&self) -> usize {
        128
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, "llava_gqa_testdev_balanced.jsonl", &["data/images", "images"])
    }

    fn upload(&self, _data: &Path, answers: &[Answer]) -> Result<Option<Upload>, Error> {
        let rows: Vec<_> = answers
            .iter()
            .map(|answer| Row { question_id: &answer.question_id, prediction: prediction(answer) })
            .collect();
        Ok(Some(Upload { name: "testdev_balanced_predictions.json", bytes: python_json::compact(&rows) }))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        llava_only(self, protocol, data)?;
        let labels = [LABELS.to_owned(), format!("data/{LABELS}")].map(|name| data.join(name));
        let report = |metrics, notes| Report { benchmark: "gqa", protocol, n: answers.len(), metrics, notes };
        let Some(path) = labels.into_iter().find(|path| path.is_file()) else {
            return Ok(report(Vec::new(), vec![format!("no accuracy: {LABELS} of GQA is not in the folder")]));
        };
        let labels: HashMap<String, Label> = read_json(&path)?;
        let mut right = 0;
        for answer in answers {
            let label = labels.get(&key(&answer.question_id)).ok_or_else(|| {
                Error::data(&path, format!("no label for the question {} of an answer", answer.question_id))
            })?;
            right += usize::from(prediction(answer) == label.answer);
        }
        let acc = right as f64 / answers.len().max(1) as f64;
        Ok(report(vec![("acc".to_owned(), acc)], ById::new(answers).notes([])))
    }
}

fn prediction(answer: &Answer) -> String {
    answer.text.trim_end_matches('.').to_lowercase()
}
