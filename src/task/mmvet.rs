//! MM-Vet: open questions that need several abilities at once.
//!
//! A line of `llava-mm-vet.jsonl`: `{"image": "v1_0.png", "text": "What is x in the equation?", "category": "conv",
//! "question_id": 0}`
//!
//! Judged by GPT-4, on MM-Vet's own server or notebook, which takes `{"v1_0": "…", …}`. Official converter: LLaVA's
//! `scripts/convert_mmvet_for_eval.py`.

use std::path::Path;

use serde::{Serialize, Serializer};
use serde_json::json;

use super::{Answer, Protocol, Report, Sample, Task, ids::ById, llava_only, python_json, questions::samples};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
};

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct MmVet;

/// The upload: a map in the order of the answers, a question once.
struct Rows<'a>(ById<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.in_order().map(|(id, answer)| (format!("v1_{id}"), &answer.text)))
    }
}

impl Task for MmVet {
    fn name(&self) -> &'static str {
        "mm-vet"
    }

    fn about(&self) -> &'static str {
        "MM-Vet: open questions that need several abilities; a file for its judge"
    }

    fn default_data(&self) -> &'static str {
        "playground/data/eval/mm-vet"
    }

    fn max_new_tokens(&self) -> usize {
        1024
    }

    fn headline(&self) -> &'static str {
        ""
    }

    fn hub(&self) -> Option<DataSet> {
        Some(DataSet { id: "lmms-lab-encoder/MMVet", files: &["data/test"], unpack })
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let mut samples = samples(data, "llava-mm-vet.jsonl", &["images"])?;
        for sample in &mut samples {
            sample.clip_text.clone_from(&sample.text);
        }
        Ok(samples)
    }

    fn upload_name(&self) -> Option<&'static str> {
        Some("mm-vet.json")
    }

    fn upload(&self, _data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        Ok(python_json::indented(&Rows(ById::new(answers))))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        llava_only(self, protocol, data)?;
        let mut notes = ById::new(answers).repeated();
        notes.push("judged by MM-Vet's server".to_owned());
        Ok(Report { benchmark: "mm-vet", protocol, n: answers.len(), metrics: Vec::new(), notes })
    }
}

/// A row of the hub's data set: `question_id` `v1_0`, `image`, `question`.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.text("question_id")?;
    let number: u64 = id.trim_start_matches("v1_").parse().map_err(|_| row.error("an id like v1_0 was expected"))?;
    let picture = row.picture("image")?.ok_or_else(|| row.error("no picture"))?;
    let image = folder.picture("images", &id, picture)?;
    let line = json!({"question_id": number, "image": image, "text": row.text("question")?, "category": "conv"});
    folder.line("llava-mm-vet.jsonl", &line.to_string())
}
