//! MME: two yes / no questions about each of 1,187 images, in fourteen categories.
//!
//! A line of `llava_mme.jsonl`:
//! `{"question_id": "code_reasoning/0020.png", "image": "code_reasoning/0020.png", "text": "Is a python code shown in
//! the picture?\nAnswer the question using a single word or phrase.", "category": "code_reasoning"}`
//!
//! The label of this question, in `MME_Benchmark_release_version/code_reasoning/[questions_answers_YN/]0020.txt`:
//! `Is a python code shown in the picture? Please answer yes or no.⇥Yes`
//!
//! Score of a category: 100 · share of right answers + 100 · share of images with both answers right; perception
//! and cognition are sums over their categories.
//!
//! Official scorer: `eval_tool/calculation.py` of <https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models>
//! behind LLaVA's `convert_answer_to_mme.py`; lmms-eval's rule is `lmms_eval/tasks/mme/utils.py`.

mod release;

use std::{collections::BTreeMap, path::Path};

use release::{Labels, release_folder, samples_of_file, samples_of_release};

use serde_json::json;

use super::{
    Answer, Card, Protocol, Report, Sample, Task, Unit,
    pairs::{Pairs, Scored, left_out, yes_or_no},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::{Combine, Marks},
    text::SINGLE_WORD,
};

/// The MME benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Mme;

const PERCEPTION: [&str; 10] =
    ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"];
const COGNITION: [&str; 4] = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];
/// The release's own folder.
const RELEASE: &str = "MME_Benchmark_release_version";
const YES_OR_NO: &str = "Please answer yes or no.";

impl Task for Mme {
    fn card(&self) -> Card {
        Card {
            name: "mme",
            about: "MME: yes / no questions in 14 categories; perception and cognition sums",
            data: "playground/data/eval/MME",
            headline: "perception",
            unit: Unit::Points,
            together: true,
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/MME", files: &["data/test"], unpack }),
            ..Card::default()
        }
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        yes_or_no(&answer.text, protocol).is_none().then_some("say neither yes nor no where the rule looks")
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let release = release_folder(data)?;
        let file = ["llava_mme.jsonl", "MME/llava_mme.jsonl", "../llava_mme.jsonl"]
            .map(|name| data.join(name))
            .into_iter()
            .find(|path| path.is_file());
        let samples = match file {
            Some(file) => samples_of_file(&file, &release)?,
            None => samples_of_release(&release)?,
        };
        if samples.is_empty() {
            return Err(Error::data(data, "no MME question in this folder"));
        }
        Ok(samples)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let labels = Labels::read(&release_folder(data)?)?;
        let mut categories: BTreeMap<String, Pairs> = BTreeMap::new();
        for answer in answers {
            let (category, file) = place(answer, data)?;
            let (question, label) = labels.find(&category, &file, &answer.prompt).ok_or_else(|| {
                Error::data(
                    data,
                    format!("no label for `{}` of {category}/{file}", secateur_weights::printable(&answer.prompt)),
                )
            })?;
            let right = yes_or_no(&answer.text, protocol) == Some(label);
            let mark = answer.mark(right, if label { "yes" } else { "no" });
            categories.entry(category).or_default().add(file, question, mark);
        }
        Ok(report(&categories, labels.len(), protocol))
    }
}

fn report(categories: &BTreeMap<String, Pairs>, labelled: usize, protocol: Protocol) -> Report {
    let mut metrics = Vec::new();
    let mut sums = Vec::new();
    let mut n = 0;
    let mut incomplete = 0;
    let mut marks = Marks { combine: Combine::Sum, ..Marks::new("perception") };
    for (sum, names) in [("perception", &PERCEPTION[..]), ("cognition", &COGNITION[..])] {
        let (mut total, before) = (0.0, n);
        for (stratum, name) in names.iter().enumerate() {
            let Some(images) = categories.get(*name) else { continue };
            let scored = Scored::new(images);
            incomplete += scored.incomplete;
            if scored.pairs == 0 {
                continue;
            }
            n += 2 * scored.pairs;
            total += scored.score();
            metrics.push(((*name).to_owned(), scored.score()));
            if sum == "perception" {
                images.add_marks(&mut marks, stratum, |right, both| [100.0 * (right / 2.0 + both), 1.0]);
            }
        }
        // Without answers there is no score.
        if n > before {
            sums.push((sum.to_owned(), total));
        }
    }
    let (all, seen) = (PERCEPTION.len() + COGNITION.len(), metrics.len());
    if n > 0 {
        let total = sums.iter().map(|(_, value)| value).sum();
        metrics.extend(sums);
        metrics.push(("total".to_owned(), total));
    }
    let mut notes = Pairs::notes(categories.values());
    if n < labelled || seen < all {
        notes.push(format!(
            "{n} of {labelled} labelled questions, {seen} of {all} categories; sums are over these, and no figure for a table"
        ));
    }
    if incomplete > 0 {
        notes.push(left_out(incomplete));
    }
    Report { benchmark: "mme", protocol, n, metrics, marks, notes }
}

/// Category and label file of an answer, from an id like `artwork/images/00002.jpg`.
fn place(answer: &Answer, data: &Path) -> Result<(String, String), Error> {
    let id = answer.question_id.as_str().unwrap_or_default();
    match (id.split('/').next(), id.rsplit('/').next().and_then(|file| file.split('.').next())) {
        (Some(category), Some(stem)) if id.contains('/') => Ok((category.to_owned(), format!("{stem}.txt"))),
        _ => Err(Error::data(data, format!("{} is no MME question id (`category/file`)", answer.question_id))),
    }
}

/// Unpacks a row of the hub's data set: `question_id` `code_reasoning/0020.png`, `image`, `question` with "Please
/// answer yes or no.", `answer`, `category`.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let [id, question, answer, category] = ["question_id", "question", "answer", "category"].map(|name| row.name(name));
    let (id, question, answer) = (id?, question?, answer?);
    if [&question, &answer].iter().any(|text| text.contains(['\n', '\r', '\t'])) {
        return Err(
            row.error("its question or answer has a line break or a tab, which MME's files of labels cannot hold")
        );
    }
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    folder.image(RELEASE, &id, image)?;
    let stem = id.rsplit_once('.').map_or(id.as_str(), |(stem, _)| stem);
    // Where images have a folder of their own, labels have one too.
    let labels = stem.replace("/images/", "/questions_answers_YN/");
    folder.line(&format!("{RELEASE}/{labels}.txt"), &format!("{question}\t{answer}"))?;
    let text = format!("{}{SINGLE_WORD}", question.replace(YES_OR_NO, "").trim_end());
    let line = json!({"question_id": id, "image": id, "text": text, "category": category?});
    folder.line("llava_mme.jsonl", &line.to_string())
}
