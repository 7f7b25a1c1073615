//! MMBench and MMBench-CN: multiple-choice questions, each asked with its options in every rotation.
//!
//! A row of `mmbench_dev_20230712.tsv` (columns in any order): `index` 241, `question`, `hint`, `A` to `D` (missing ones
//! empty), `answer` A, `category`, `image` (base64), `split` dev. Rotations of a question have the same `index` modulo 10⁶.
//!
//! Asked: the hint, the question and the options, a line each, up to the first that is missing; then the request for a
//! letter, which answers files leave out of `prompt`.
//!
//! Score, by strict equality with the letter: `circular_acc`, the share of questions with every rotation right, and
//! `single_acc`, the share of first rotations that are right. By lmms-eval's rule (its tasks without a language model) the
//! letter is looked for in the answer. The server takes a workbook; LLaVA's converter is
//! `scripts/convert_mmbench_for_submission.py`. Such a workbook is read as answers, too: it holds the labels of the dev
//! split.

mod choice;
mod sheet;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Answer, Picture, Protocol, Report, Sample, Task,
    ids::{ById, key},
    questions::one_of,
    scienceqa::CHOOSE,
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
};

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct MmBench {
    /// MMBench-CN: the same in Chinese.
    pub chinese: bool,
}

/// Rotations of one question differ by multiples of this.
const ROTATION: u64 = 1_000_000;
const TABLE: &str = "mmbench_dev_20230712.tsv";
const TABLE_CN: &str = "mmbench_dev_cn_20231003.tsv";
const CHOOSE_CN: &str = "\n请直接回答选项字母。";

/// A row of the table.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    index: u64,
    question: String,
    #[serde(default)]
    hint: String,
    #[serde(rename = "A", default)]
    a: String,
    #[serde(rename = "B", default)]
    b: String,
    #[serde(rename = "C", default)]
    c: String,
    #[serde(rename = "D", default)]
    d: String,
    #[serde(default)]
    answer: String,
    #[serde(default)]
    image: String,
    #[serde(default)]
    split: String,
}

impl Row {
    /// The options up to the first that is missing.
    fn options(&self) -> Vec<&str> {
        [&self.a, &self.b, &self.c, &self.d]
            .into_iter()
            .map(String::as_str)
            .take_while(|option| there(option))
            .collect()
    }

    fn sample(self, place: &Path, suffix: &'static str) -> Result<Sample, Error> {
        let hint = if there(&self.hint) { format!("{}\n", self.hint) } else { String::new() };
        let mut text = format!("{hint}{}", self.question);
        let options = self.options();
        let letters = ["A", "B", "C", "D"][..options.len()].to_vec();
        for (letter, option) in letters.iter().zip(&options) {
            text.push_str(&format!("\n{letter}. {option}"));
        }
        let more = Map::from_iter([
            ("round_id".to_owned(), json!(0)),
            ("options".to_owned(), json!(options)),
            ("option_char".to_owned(), json!(letters)),
        ]);
        let place = place.join(self.index.to_string());
        let bytes = STANDARD
            .decode(self.image.trim())
            .map_err(|e| Error::Image { path: place.clone(), reason: format!("its picture is no base64: {e}") })?;
        Ok(Sample {
            question_id: self.index.into(),
            picture: Some(Picture::Inline { place, bytes: bytes.into() }),
            clip_text: text.clone(),
            text,
            suffix,
            more,
        })
    }
}

/// Whether a cell holds something: what pandas reads as missing, and the words for it.
fn there(cell: &str) -> bool {
    let missing = ["", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "n/a", "null"];
    !missing.contains(&cell) && !["nan", "-nan", "none"].contains(&cell.to_lowercase().as_str())
}

impl MmBench {
    fn table(self, data: &Path) -> Result<PathBuf, Error> {
        let name = if self.chinese { TABLE_CN } else { TABLE };
        one_of(data, &[name, "annotation.tsv"])
    }

    fn rows(self, data: &Path) -> Result<Vec<Row>, Error> {
        let path = self.table(data)?;
        let fail = |e: csv::Error| Error::data(&path, e.to_string());
        let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_path(&path).map_err(fail)?;
        reader.deserialize().collect::<Result<_, _>>().map_err(fail)
    }
}

impl Task for MmBench {
    fn name(&self) -> &'static str {
        if self.chinese { "mmbench-cn" } else { "mmbench" }
    }

    fn about(&self) -> &'static str {
        if self.chinese {
            "MMBench-CN: MMBench in Chinese"
        } else {
            "MMBench: multiple-choice questions in every rotation of their options; circular accuracy"
        }
    }

    fn default_data(&self) -> &'static str {
        if self.chinese { "playground/data/eval/mmbench_cn" } else { "playground/data/eval/mmbench" }
    }

    fn max_new_tokens(&self) -> usize {
        1024
    }

    fn headline(&self, _protocol: Protocol) -> &'static str {
        "circular_acc"
    }

    fn hub(&self) -> Option<DataSet> {
        let id = "lmms-lab-encoder/MMBench";
        Some(match self.chinese {
            false => DataSet { id, files: &["en/dev"], unpack: |row, folder| unpack(row, folder, TABLE) },
            true => DataSet { id, files: &["cn/dev"], unpack: |row, folder| unpack(row, folder, TABLE_CN) },
        })
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let table = self.table(data)?;
        let suffix = if self.chinese { CHOOSE_CN } else { CHOOSE };
        self.rows(data)?.into_iter().map(|row| row.sample(&table, suffix)).collect()
    }

    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        if path.extension().is_some_and(|extension| extension == "xlsx") {
            return Ok((sheet::read(path)?, 0));
        }
        Ok((Answer::read_all(path)?, 0))
    }

    /// Not where a workbook brings the labels along.
    fn needs_data(&self, answers: &[Answer], protocol: Protocol) -> bool {
        let label = |answer: &Answer| answer.more.get(sheet::LABEL).is_some_and(Value::is_string);
        protocol == Protocol::LmmsEval || !answers.iter().all(label)
    }

    fn upload_name(&self) -> Option<&'static str> {
        Some("mmbench_upload.xlsx")
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let bytes =
            sheet::write(&self.rows(data)?, &ById::new(answers)).map_err(|e| Error::data(data, e.to_string()))?;
        Ok(bytes)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let own: BTreeMap<u64, String> = answers
            .iter()
            .filter_map(|answer| {
                Some((index(&answer.question_id)?, answer.more.get(sheet::LABEL)?.as_str()?.to_owned()))
            })
            .collect();
        let rows = match self.rows(data) {
            Err(error) if own.is_empty() || protocol == Protocol::LmmsEval => return Err(error),
            rows => rows.ok(),
        };
        let labels: BTreeMap<u64, String> = match &rows {
            Some(rows) => {
                rows.iter().filter(|row| there(&row.answer)).map(|row| (row.index, row.answer.clone())).collect()
            }
            None => own,
        };
        let options: BTreeMap<u64, Vec<&str>> = rows.iter().flatten().map(|row| (row.index, row.options())).collect();
        let by_id = ById::new(answers);
        let ids: Vec<Value> = labels.keys().map(|index| json!(index)).collect();
        let mut notes = if ids.is_empty() { by_id.repeated() } else { by_id.notes(&ids, "count as wrong") };
        let (mut questions, mut single) = (BTreeMap::<u64, bool>::new(), Vec::new());
        for (&index, label) in &labels {
            let right = by_id.get(&index.into()).is_some_and(|answer| match protocol {
                Protocol::Llava => answer.text == *label,
                Protocol::LmmsEval => {
                    choice::named(&answer.text, &options[&index]).is_some_and(|named| named.to_string() == *label)
                }
            });
            *questions.entry(index % ROTATION).or_insert(true) &= right;
            if index < ROTATION {
                single.push(right);
            }
        }
        let share = |right: usize, all: usize| right as f64 / all.max(1) as f64;
        let mut metrics = Vec::new();
        if labels.is_empty() {
            notes.push("this split has no labels; MMBench's server scores it".to_owned());
        } else {
            let all_right = questions.values().filter(|right| **right).count();
            metrics.push(("circular_acc".to_owned(), share(all_right, questions.len())));
            metrics.push(("single_acc".to_owned(), share(single.iter().filter(|right| **right).count(), single.len())));
        }
        Ok(Report { benchmark: self.name(), protocol, n: answers.len(), metrics, notes })
    }
}

fn index(id: &Value) -> Option<u64> {
    key(id).parse().ok()
}
/// A row of the hub's data set: `index`, `question`, `hint`, `A` to `D`, `answer`, `image`, `split`.
fn unpack(row: &Record, folder: &mut Folder, table: &str) -> Result<(), Error> {
    const COLUMNS: [&str; 9] = ["index", "question", "hint", "A", "B", "C", "D", "answer", "split"];
    let mut line = csv::WriterBuilder::new().delimiter(b'\t').from_writer(Vec::new());
    let mut write = |fields: Vec<String>| line.write_record(fields).map_err(|error| row.error(&error.to_string()));
    if folder.count(table) == 0 {
        write(COLUMNS.into_iter().chain(["image"]).map(str::to_owned).collect())?;
    }
    let mut fields = COLUMNS.iter().map(|name| row.text(name)).collect::<Result<Vec<_>, _>>()?;
    let picture = row.picture("image")?.ok_or_else(|| row.error("no picture"))?;
    fields.push(STANDARD.encode(picture));
    write(fields)?;
    let line = line.into_inner().map_err(|error| row.error(&error.to_string()))?;
    folder.line(table, String::from_utf8_lossy(&line).trim_end_matches('\n'))
}
