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

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use super::{Answer, Protocol, Report, SINGLE_WORD, Sample, Task};
use crate::Error;

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Mme;

const PERCEPTION: [&str; 10] =
    ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"];
const COGNITION: [&str; 4] = ["commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning"];
const YES_OR_NO: &str = "Please answer yes or no.";

/// A line of the question file.
#[derive(Deserialize)]
struct Question {
    question_id: Value,
    image: String,
    text: String,
}

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
        match samples.iter().find(|sample| !sample.image.is_file()) {
            Some(sample) => Err(Error::data(&sample.image, "the picture of a question is missing; fetch MME's images")),
            None => Ok(samples),
        }
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
        Ok(report(&categories, labels.0.len(), protocol))
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

/// Where the category folders are.
fn release_folder(data: &Path) -> Result<PathBuf, Error> {
    let has_category =
        |folder: &PathBuf| PERCEPTION.iter().chain(&COGNITION).any(|category| folder.join(category).is_dir());
    ["MME_Benchmark_release_version", "MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark", "."]
        .map(|name| data.join(name))
        .into_iter()
        .find(has_category)
        .ok_or_else(|| {
            Error::data(
                data,
                "expected MME's category folders here or in MME_Benchmark_release_version; --data names the folder",
            )
        })
}

fn samples_of_file(path: &Path, release: &Path) -> Result<Vec<Sample>, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "the questions cannot be read"))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(i, line)| {
            let question: Question = serde_json::from_str(line)
                .map_err(|e| Error::data(path, format!("line {} is no question: {e}", i + 1)))?;
            let image = release.join(question.image);
            Ok(Sample { question_id: question.question_id, image, text: question.text })
        })
        .collect()
}

/// The questions as the label files have them, for a release without LLaVA's question file.
fn samples_of_release(release: &Path) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    for category in PERCEPTION.iter().chain(&COGNITION) {
        let folder = release.join(category);
        if !folder.is_dir() {
            continue;
        }
        let images = if folder.join("images").is_dir() { format!("{category}/images") } else { (*category).to_owned() };
        for (stem, lines) in label_files(&folder)? {
            let image = ["jpg", "png", "jpeg"]
                .map(|extension| format!("{images}/{stem}.{extension}"))
                .into_iter()
                .find(|name| release.join(name).is_file())
                .ok_or_else(|| Error::data(&folder, format!("no picture for {stem}.txt")))?;
            for (question, _) in lines {
                let text = format!("{}{SINGLE_WORD}", question.replace(YES_OR_NO, "").trim());
                samples.push(Sample { question_id: image.clone().into(), image: release.join(&image), text });
            }
        }
    }
    Ok(samples)
}

/// The lines `(question, answer)` of every label file of a category, by the file's stem.
fn label_files(folder: &Path) -> Result<BTreeMap<String, Vec<(String, String)>>, Error> {
    let nested = folder.join("questions_answers_YN");
    let folder = if nested.is_dir() { nested } else { folder.to_owned() };
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder, "the labels cannot be listed"))? {
        let path = entry.map_err(Error::io(&folder, "the labels cannot be listed"))?.path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(Error::io(&path, "the labels cannot be read"))?;
        let lines = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| {
                let (question, answer) = line.trim().split_once('\t').ok_or_else(|| {
                    Error::data(&path, format!("expected `question⇥answer`, found `{}`", line.escape_debug()))
                })?;
                Ok((question.to_owned(), answer.to_owned()))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        files.insert(stem, lines);
    }
    Ok(files)
}

/// `(category, file, question)` → whether the answer is yes.
struct Labels(HashMap<(String, String, String), bool>);

impl Labels {
    fn read(release: &Path) -> Result<Self, Error> {
        let mut labels = HashMap::new();
        for category in PERCEPTION.iter().chain(&COGNITION) {
            let folder = release.join(category);
            if !folder.is_dir() {
                continue;
            }
            for (stem, lines) in label_files(&folder)? {
                for (question, answer) in lines {
                    let yes = match answer.trim().to_lowercase().as_str() {
                        "yes" => true,
                        "no" => false,
                        other => {
                            return Err(Error::data(
                                &folder,
                                format!("{stem}.txt: expected Yes or No, found `{other}`"),
                            ));
                        }
                    };
                    labels.insert(((*category).to_owned(), format!("{stem}.txt"), question), yes);
                }
            }
        }
        Ok(Self(labels))
    }

    /// The label of a prompt, looked up as LLaVA's converter does: without the suffix, with the request for yes or no
    /// after one space or two.
    fn find(&self, category: &str, file: &str, prompt: &str) -> Option<(String, bool)> {
        let question = prompt.replace(SINGLE_WORD.trim(), "").trim().to_owned();
        let candidates = if question.contains(YES_OR_NO) {
            vec![question]
        } else {
            vec![format!("{question} {YES_OR_NO}"), format!("{question}  {YES_OR_NO}")]
        };
        candidates.into_iter().find_map(|question| {
            let key = (category.to_owned(), file.to_owned(), question);
            self.0.get(&key).map(|&yes| (key.2.clone(), yes))
        })
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
