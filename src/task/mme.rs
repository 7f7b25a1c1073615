//! MME: two yes / no questions about each of 1,187 pictures, in fourteen categories.
//!
//! A line of `llava_mme.jsonl`:
//! `{"question_id": "code_reasoning/0020.png", "image": "code_reasoning/0020.png", "text": "Is a python code shown in
//! the picture?\nAnswer the question using a single word or phrase.", "category": "code_reasoning"}`
//!
//! Its label, in `MME_Benchmark_release_version/code_reasoning/[questions_answers_YN/]0020.txt`:
//! `Is a python code shown in the picture? Please answer yes or no.⇥Yes`
//!
//! Score of a category: 100 · share of right answers + 100 · share of pictures with both answers right; perception
//! and cognition are sums over their categories.
//!
//! Official scorer: `eval_tool/calculation.py` of <https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models>
//! behind LLaVA's `convert_answer_to_mme.py`; lmms-eval's rule is `lmms_eval/tasks/mme/utils.py`.

mod release;

use std::{collections::BTreeMap, path::Path};

use release::{Labels, release_folder, samples_of_file, samples_of_release};

use super::{Answer, Protocol, Report, Sample, Task, questions::with_pictures};
use crate::Error;

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Mme;

const PERCEPTION: [&str; 10] =
    ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"];
const COGNITION: [&str; 4] = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];
const YES_OR_NO: &str = "Please answer yes or no.";

impl Task for Mme {
    fn name(&self) -> &'static str {
        "mme"
    }

    fn about(&self) -> &'static str {
        "MME: yes / no questions in 14 categories; perception and cognition sums"
    }

    fn default_data(&self) -> &'static str {
        "playground/data/eval/MME"
    }

    fn max_new_tokens(&self) -> usize {
        128
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
        with_pictures(samples)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let labels = Labels::read(&release_folder(data)?)?;
        let mut categories: BTreeMap<String, BTreeMap<String, Vec<Judged>>> = BTreeMap::new();
        for answer in answers {
            let (category, file) = place(answer, data)?;
            let (question, label) = labels.find(&category, &file, &answer.prompt).ok_or_else(|| {
                Error::data(data, format!("no label for `{}` of {category}/{file}", answer.prompt.escape_debug()))
            })?;
            let right = parse(&answer.text, protocol) == Some(label);
            let judged = categories.entry(category).or_default().entry(file).or_default();
            // A question that is answered twice counts once.
            if judged.iter().all(|other| other.question != question) {
                judged.push(Judged { question, right });
            }
        }
        Ok(report(&categories, labels.len(), protocol))
    }
}

/// One answer against its label.
struct Judged {
    question: String,
    right: bool,
}

fn report(categories: &BTreeMap<String, BTreeMap<String, Vec<Judged>>>, labelled: usize, protocol: Protocol) -> Report {
    let mut metrics = Vec::new();
    let mut sums = Vec::new();
    let mut n = 0;
    let mut incomplete = 0;
    for (sum, names) in [("perception", &PERCEPTION[..]), ("cognition", &COGNITION[..])] {
        let mut total = 0.0;
        for name in names {
            let Some(pictures) = categories.get(*name) else { continue };
            let pairs: Vec<&Vec<Judged>> = pictures.values().filter(|judged| judged.len() == 2).collect();
            incomplete += pictures.len() - pairs.len();
            if pairs.is_empty() {
                continue;
            }
            let right = pairs.iter().flat_map(|pair| pair.iter()).filter(|judged| judged.right).count();
            let both = pairs.iter().filter(|pair| pair.iter().all(|judged| judged.right)).count();
            let score = 100.0 * (right as f64 / (2 * pairs.len()) as f64 + both as f64 / pairs.len() as f64);
            n += 2 * pairs.len();
            total += score;
            metrics.push(((*name).to_owned(), score));
        }
        sums.push((sum.to_owned(), total));
    }
    let total = sums.iter().map(|(_, value)| value).sum();
    metrics.extend(sums);
    metrics.push(("total".to_owned(), total));
    let mut notes = Vec::new();
    if n < labelled {
        let all = PERCEPTION.len() + COGNITION.len();
        let seen = metrics.len() - 3;
        notes.push(format!(
            "{n} of {labelled} labelled questions, {seen} of {all} categories; sums are over these, and no figure for a table"
        ));
    }
    if incomplete > 0 {
        notes.push(format!("{incomplete} picture(s) do not have two answered questions and are left out"));
    }
    Report { benchmark: "mme", protocol, n, metrics, notes }
}

/// What an answer says; `None` is neither.
fn parse(text: &str, protocol: Protocol) -> Option<bool> {
    let text = text.to_lowercase();
    let text = match protocol {
        Protocol::Llava => text,
        Protocol::LmmsEval => text.trim().replace('.', ""),
    };
    match (text.as_str(), protocol) {
        ("yes", _) | ("y", Protocol::LmmsEval) => return Some(true),
        ("no", _) | ("n", Protocol::LmmsEval) => return Some(false),
        _ => {}
    }
    let start: String = text.chars().take(4).collect();
    if start.contains("yes") {
        Some(true)
    } else if start.contains("no") {
        Some(false)
    } else {
        None
    }
}

/// Category and label file of an answer, from an id like `artwork/images/00002.jpg`.
fn place(answer: &Answer, data: &Path) -> Result<(String, String), Error> {
    let id = answer.question_id.as_str().unwrap_or_default();
    match (id.split('/').next(), id.rsplit('/').next().and_then(|file| file.split('.').next())) {
        (Some(category), Some(stem)) if id.contains('/') => Ok((category.to_owned(), format!("{stem}.txt"))),
        _ => Err(Error::data(data, format!("{} is no MME question id (`category/file`)", answer.question_id))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rules_read_answers_as_their_scorers_do() {
        for (text, own, lmms) in [
            ("Yes", Some(true), Some(true)),
            ("no", Some(false), Some(false)),
            (" Yes", Some(true), Some(true)),
            ("  Yes", None, Some(true)),
            ("No, it is not.", Some(false), Some(false)),
            ("It's no", None, None),
            ("n", None, Some(false)),
            ("Y.", None, Some(true)),
            ("Ano", Some(false), Some(false)),
            ("Impressionism", None, None),
            ("", None, None),
        ] {
            assert_eq!(parse(text, Protocol::Llava), own, "{text:?}");
            assert_eq!(parse(text, Protocol::LmmsEval), lmms, "{text:?}");
        }
    }

    #[test]
    fn one_right_of_two_scores_50_and_both_200() {
        let pair = |right: [bool; 2]| {
            right.iter().enumerate().map(|(i, &right)| Judged { question: i.to_string(), right }).collect::<Vec<_>>()
        };
        let category = |pairs: Vec<[bool; 2]>| {
            let files = pairs.into_iter().enumerate().map(|(i, right)| (i.to_string(), pair(right))).collect();
            let report = report(&BTreeMap::from([("count".to_owned(), files)]), 2, Protocol::Llava);
            report.metrics[0].1
        };
        assert_eq!(category(vec![[true, false]]), 50.0);
        assert_eq!(category(vec![[true, true]]), 200.0);
        assert_eq!(category(vec![[true, true], [true, false], [false, false], [false, false]]), 62.5);
    }
}
