//! VQAv2: questions about COCO pictures, test-dev.
//!
//! A line of `llava_vqav2_mscoco_test-dev2015.jsonl`: `{"question_id": 262144005, "image": "COCO_test2015_000000262144.jpg",
//! "text": "Is the ball flying towards the batter?\nAnswer the question using a single word or phrase.", …}`
//!
//! Scored by the EvalAI server alone. Its upload holds every question of `llava_vqav2_mscoco_test2015.jsonl`, answers
//! normalised, and "" where a question (most of them: they are not in test-dev) was not asked.
//!
//! Official converter: LLaVA's `scripts/convert_vqav2_for_submission.py`.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Answer, Protocol, Report, Sample, Task,
    ids::ById,
    llava_only, normalise, python_json,
    questions::{file, lines, samples},
};
use crate::Error;

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct VqaV2;

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
    fn name(&self) -> &'static str {
        "vqav2"
    }

    fn about(&self) -> &'static str {
        "VQAv2: questions about COCO pictures, test-dev; a file for the EvalAI server"
    }

    fn default_data(&self) -> &'static str {
        "playground/data/eval/vqav2"
    }

    fn max_new_tokens(&self) -> usize {
        128
    }

    fn headline(&self) -> &'static str {
        ""
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples(data, "llava_vqav2_mscoco_test-dev2015.jsonl", &["test2015"])
    }

    /// The official converter passes over lines that are no JSON.
    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        Answer::read_json_lines(path)
    }

    fn upload_name(&self) -> Option<&'static str> {
        Some("vqav2_upload.json")
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
        llava_only(self, protocol, data)?;
        let mut notes = ById::new(answers).repeated();
        notes.push("scored by the EvalAI server".to_owned());
        Ok(Report { benchmark: "vqav2", protocol, n: answers.len(), metrics: Vec::new(), notes })
    }
}
