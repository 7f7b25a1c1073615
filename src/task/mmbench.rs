//! MMBench and MMBench-CN: multiple-choice questions, each asked with its options in every rotation.
//!
//! A row of `mmbench_dev_20230712.tsv` (columns in any order): `index` 241, `question`, `hint`, `A` to `D` (missing
//! ones empty), `answer` A, `category`, `image` (base64), `split` dev. Rotations of a question have the same `index`
//! modulo 10⁶.
//!
//! MustAnswer: the hint, the question and the options, a line each, up to the first that is missing; then the request
//! for a letter, which answers files leave out of `prompt`.
//!
//! Score, by strict equality with the letter: `circular_acc`, the share of questions with every rotation right, and
//! `single_acc`, the share of first rotations that are right. By lmms-eval's rule (its tasks without a judge model) the
//! letter is looked for in the answer. The server takes a workbook; LLaVA's converter is
//! `scripts/convert_mmbench_for_submission.py`. Such a workbook is read as answers, too: it holds the labels of the dev
//! split.

mod choice;
mod sheet;
mod workbook;

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Answer, Card, MediaSource, MustAnswer, Protocol, Report, Sample, Task,
    ids::{ById, key},
    scienceqa::CHOOSE,
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    files::read_text,
    statistics::{Marks, Unit},
};

/// The MMBench benchmark, or MMBench-CN.
#[derive(Clone, Copy, Debug)]
pub struct MmBench {
    /// Whether the benchmark is MMBench-CN, with the questions in Chinese.
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
    category: String,
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

    fn sample(self, place: &Path, suffix: &'static str, bytes: Arc<[u8]>) -> Sample {
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
        Sample {
            question_id: self.index.into(),
            media: Some(MediaSource::Inline { place, bytes }),
            clip_text: text.clone(),
            text,
            suffix,
            category: self.category,
            more,
        }
    }
}

/// Whether a cell holds a value: neither what pandas reads as missing nor a word for it.
fn there(cell: &str) -> bool {
    let missing = ["", "#N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "n/a", "null"];
    !missing.contains(&cell) && !["nan", "-nan", "none"].contains(&cell.to_lowercase().as_str())
}

impl MmBench {
    /// The table in `data`: LLaVA's, else one of MMBench's later releases, a dev split before a test split.
    fn table(self, data: &Path) -> Result<PathBuf, Error> {
        let official = if self.chinese { TABLE_CN } else { TABLE };
        let names: Vec<String> = std::fs::read_dir(data)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_file())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        let rank = |name: &&String| {
            let lower = name.to_lowercase();
            let is_table = lower.ends_with(".tsv") && lower.contains("_cn") == self.chinese;
            match lower.as_str() {
                lower if lower == official => Some(0),
                "annotation.tsv" => Some(1),
                lower if is_table && lower.starts_with("mmbench_dev") => Some(2),
                lower if is_table && lower.starts_with("mmbench_test") => Some(3),
                _ => None,
            }
        };
        let found = names.iter().filter_map(|name| Some((rank(&name)?, name))).min();
        found.map(|(_, name)| data.join(name)).ok_or_else(|| {
            let later = if self.chinese { "MMBench_DEV_CN.tsv" } else { "MMBench_DEV_EN.tsv" };
            let reason = format!(
                "expected {official}, annotation.tsv or a later table such as {later} here; --data names the folder"
            );
            Error::data(data, reason)
        })
    }

    fn rows(self, data: &Path) -> Result<Vec<Row>, Error> {
        let path = self.table(data)?;
        let text = read_text(&path, "the table cannot be read")?;
        let mut reader = csv::ReaderBuilder::new().delimiter(b'\t').from_reader(text.as_bytes());
        reader.deserialize().collect::<Result<_, _>>().map_err(|error| Error::data(&path, table_words(&error)))
    }
}

/// The error of a table in plain words.
fn table_words(error: &csv::Error) -> String {
    let line = error.position().map_or_else(String::new, |position| format!("line {}: ", position.line()));
    match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{line}the row has {len} columns, the first row has {expected_len}")
        }
        csv::ErrorKind::Deserialize { err, .. } => match err.kind() {
            csv::DeserializeErrorKind::Message(text) if text.starts_with("missing field") => {
                format!("the column {} is missing", text.trim_start_matches("missing field "))
            }
            _ => format!("{line}the index is no whole number, or a cell holds something else than its column"),
        },
        _ => format!("{line}it is no row of a table with tabs between its columns"),
    }
}

/// The images of a table by the index of their row. A cell holds an image in base64, or the index of the row that has
/// the image: rotations of a question share one image in later releases.
fn images(rows: &[Row], table: &Path) -> Result<HashMap<u64, Arc<[u8]>>, Error> {
    let reference = |row: &Row| row.image.trim().parse::<u64>().ok();
    let mut images: HashMap<u64, Arc<[u8]>> = HashMap::new();
    let mut bad = Vec::new();
    for row in rows.iter().filter(|row| reference(row).is_none()) {
        match STANDARD.decode(row.image.trim()) {
            Ok(bytes) => drop(images.insert(row.index, bytes.into())),
            // The check of all images, before the first question, reports it with all others that cannot be read.
            Err(_) => drop(images.insert(row.index, row.image.as_bytes().into())),
        }
    }
    let references: HashMap<u64, u64> = rows.iter().filter_map(|row| Some((row.index, reference(row)?))).collect();
    for row in rows.iter().filter(|row| reference(row).is_some()) {
        let mut at = row.index;
        for _ in 0..=references.len() {
            match references.get(&at) {
                Some(next) => at = *next,
                None => break,
            }
        }
        match images.get(&at).cloned() {
            Some(found) => drop(images.insert(row.index, found)),
            None => bad.push((row, format!("its cell `image` is {at}, and no row with that index has an image"))),
        }
    }
    if let Some((row, reason)) = bad.first() {
        let more = bad.len() - 1;
        let more = if more > 0 { format!("; so it is with {more} more of {} rows", rows.len()) } else { String::new() };
        return Err(Error::Image { path: table.join(row.index.to_string()), reason: format!("{reason}{more}") });
    }
    Ok(images)
}

impl Task for MmBench {
    fn card(&self) -> Card {
        let id = "lmms-lab-encoder/MMBench";
        let both = Card {
            headline: "circular_acc",
            max_new_tokens: 1024,
            upload: Some("mmbench_upload.xlsx"),
            ..Card::default()
        };
        if self.chinese {
            Card {
                name: "mmbench-cn",
                about: "MMBench-CN: MMBench in Chinese",
                data: "playground/data/eval/mmbench_cn",
                hub: Some(DataSet { id, files: &["cn/dev"], unpack: |row, folder| unpack(row, folder, TABLE_CN) }),
                ..both
            }
        } else {
            Card {
                name: "mmbench",
                about: "MMBench: multiple-choice questions in every rotation of their options; circular accuracy",
                data: "playground/data/eval/mmbench",
                hub: Some(DataSet { id, files: &["en/dev"], unpack: |row, folder| unpack(row, folder, TABLE) }),
                ..both
            }
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let table = self.table(data)?;
        let suffix = if self.chinese { CHOOSE_CN } else { CHOOSE };
        let rows = self.rows(data)?;
        let images = images(&rows, &table)?;
        let image = |row: Row| {
            let bytes = images.get(&row.index).cloned().unwrap_or_else(|| Arc::from(&[][..]));
            row.sample(&table, suffix, bytes)
        };
        Ok(rows.into_iter().map(image).collect())
    }

    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        if path.extension().is_some_and(|extension| extension == "xlsx") {
            return Ok((sheet::read(path)?, 0));
        }
        Ok((Answer::read_all(path)?, 0))
    }

    /// No files are needed where a workbook brings the labels along.
    fn needs_data(&self, answers: &[Answer], protocol: Protocol) -> bool {
        let label = |answer: &Answer| answer.more.get(sheet::LABEL).is_some_and(Value::is_string);
        protocol == Protocol::LmmsEval || !answers.iter().all(label)
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        let listed = answer.more.get("options").and_then(Value::as_array);
        let options: Vec<&str> = listed.into_iter().flatten().filter_map(Value::as_str).collect();
        let read = match protocol {
            Protocol::Llava => ["A", "B", "C", "D"].contains(&answer.text.as_str()),
            Protocol::LmmsEval => choice::named(&answer.text, &options).is_some(),
        };
        (!read).then_some("are no option letter as the rule reads it")
    }

    fn uploaded(&self, data: &Path) -> Result<MustAnswer, Error> {
        Ok(MustAnswer::Ids(self.rows(data)?.iter().map(|row| row.index.into()).collect()))
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let bytes = sheet::write(&self.rows(data)?, &ById::new(answers))
            .map_err(|_| Error::data(data, "an answer does not fit into a cell of the workbook"))?;
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
        let mut marks = Marks::new("circular_acc");
        let (mut questions, mut single) = (BTreeMap::<u64, bool>::new(), Vec::new());
        for (&index, label) in &labels {
            let right = by_id.get(&index.into()).is_some_and(|answer| match protocol {
                Protocol::Llava => answer.text == *label,
                Protocol::LmmsEval => {
                    choice::named(&answer.text, &options[&index]).is_some_and(|named| named.to_string() == *label)
                }
            });
            marks.answers.push(by_id.mark(&index.into(), right, label));
            *questions.entry(index % ROTATION).or_insert(true) &= right;
            if index < ROTATION {
                single.push(right);
            }
        }
        // A question with all of its rotations is one.
        marks.units.extend(questions.iter().map(|(index, &right)| Unit {
            key: index.to_string(),
            stratum: 0,
            part: f64::from(u8::from(right)),
            whole: 1.0,
        }));
        let share = |right: usize, all: usize| right as f64 / all.max(1) as f64;
        let mut metrics = Vec::new();
        if labels.is_empty() {
            notes.push("this split has no labels; MMBench's server scores it".to_owned());
        } else {
            let all_right = questions.values().filter(|right| **right).count();
            metrics.push(("circular_acc".to_owned(), share(all_right, questions.len())));
            metrics.push(("single_acc".to_owned(), share(single.iter().filter(|right| **right).count(), single.len())));
        }
        Ok(Report { benchmark: self.name(), protocol, n: answers.len(), metrics, marks, notes })
    }
}

fn index(id: &Value) -> Option<u64> {
    key(id).parse().ok()
}
/// Unpacks a row of the hub's data set: `index`, `question`, `hint`, `A` to `D`, `answer`, `image`, `split`.
fn unpack(row: &Record, folder: &mut Folder, table: &str) -> Result<(), Error> {
    const COLUMNS: [&str; 9] = ["index", "question", "hint", "A", "B", "C", "D", "answer", "split"];
    let mut line = csv::WriterBuilder::new().delimiter(b'\t').from_writer(Vec::new());
    let mut write = |fields: Vec<String>| {
        line.write_record(fields).map_err(|_| row.error("the row cannot be written as a line of a table"))
    };
    if folder.count(table) == 0 {
        write(COLUMNS.into_iter().chain(["image"]).map(str::to_owned).collect())?;
    }
    let mut fields = COLUMNS.iter().map(|name| row.text(name)).collect::<Result<Vec<_>, _>>()?;
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    fields.push(STANDARD.encode(image));
    write(fields)?;
    let line = line.into_inner().map_err(|_| row.error("the row cannot be written as a line of a table"))?;
    folder.line(table, String::from_utf8_lossy(&line).trim_end_matches('\n'))
}
