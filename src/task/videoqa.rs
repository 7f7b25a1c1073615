//! TGIF-QA, MSVD-QA, MSRVTT-QA and ActivityNet-QA: short open questions about videos. The first 1,000 of each set are
//! asked, as Video-LLaVA and FasterVLM's branch `video` do.
//!
//! A question, in the list of `test_q_1k.json` (or `test_q.json`): `{"video_name": "jfrrO5K_vKM_55_65", "question":
//! "who opened the box that held an automatic weapon in a gun?", "question_id": "v_jfrrO5K_vKM_55_65_0"}`
//!
//! The label of this question, at the same place in `test_a_1k.json`: `{"answer": "someone", "type": 2, "question_id":
//! "v_jfrrO5K_vKM_55_65_0"}`
//!
//! Judge: GPT-3.5. It reads question, answer and prediction, and says yes or no and 0 to 5 (`eval_video_qa.py`).
//!
//! Score: `accuracy` is the share of yes among yes and no, `score` the mean of the points. Without a judge, `exact` is
//! the share of predictions whose words are the answer's, and `contains` the share in which the answer's words stand
//! one after another; both in lower case, punctuation left out.
//!
//! Differences: a video that is missing ends the run (there: skipped without a word). Answers are greedy unless
//! `--temperature` says otherwise (there: drawn at 0.1, among the 50 best tokens, which is not repeated here). The
//! judge gets one message of the user (there: a system message, too) and replies at temperature 0, with up to 64
//! tokens. A reply without a verdict is asked for up to five times in all, at a higher temperature each time, and then
//! left out (there: for ever). Points in a string, "4.8", count as 4 (there: they stop the reading of that reply). An
//! answer that the judge finds neither right nor wrong does not count in `accuracy`, as there. A folder of frames, a
//! .webm or a .gif may stand for a video, and `test_q.json` for `test_q_1k.json`.

mod judged;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Answer, Card, Judged, MediaSource, MustAnswer, Protocol, Report, Sample, Task,
    ids::ById,
    llava_only, python_json,
    questions::{folder, json, one_of},
};
use crate::{Error, statistics::Marks, words::count};

/// One of the four video benchmarks.
#[derive(Clone, Copy, Debug)]
pub struct VideoQa {
    name: &'static str,
    about: &'static str,
    data: &'static str,
    /// The folders in which videos may lie.
    folders: &'static [&'static str],
    /// The prefix of a video's name in the name of its file.
    prefix: &'static str,
}

impl VideoQa {
    /// TGIF-QA, about animated GIFs.
    pub const TGIF: Self = Self {
        name: "tgif-qa",
        about: "TGIF-QA: open questions about animated GIFs; graded by a judge",
        data: "eval/GPT_Zero_Shot_QA/TGIF_Zero_Shot_QA",
        folders: &["mp4", "videos"],
        prefix: "",
    };
    /// MSVD-QA, about short clips.
    pub const MSVD: Self = Self {
        name: "msvd-qa",
        about: "MSVD-QA: open questions about short clips; graded by a judge",
        data: "eval/GPT_Zero_Shot_QA/MSVD_Zero_Shot_QA",
        folders: &["videos"],
        prefix: "",
    };
    /// MSRVTT-QA, about clips of 10 to 30 seconds.
    pub const MSRVTT: Self = Self {
        name: "msrvtt-qa",
        about: "MSRVTT-QA: open questions about clips of 10 to 30 seconds; graded by a judge",
        data: "eval/GPT_Zero_Shot_QA/MSRVTT_Zero_Shot_QA",
        folders: &["videos/all", "videos"],
        prefix: "",
    };
    /// ActivityNet-QA, about videos of minutes.
    pub const ACTIVITYNET: Self = Self {
        name: "activitynet-qa",
        about: "ActivityNet-QA: open questions about videos of minutes; graded by a judge",
        data: "eval/GPT_Zero_Shot_QA/Activitynet_Zero_Shot_QA",
        folders: &["all_test", "videos"],
        prefix: "v_",
    };

    /// The video called `name`: a file with one of the official extensions, or with another one that ffmpeg reads, in
    /// any case, or a folder of frames.
    fn video(&self, files: &Listing, name: &str) -> Option<PathBuf> {
        let stem = format!("{}{name}", self.prefix);
        let names = EXTENSIONS.map(|extension| format!("{stem}.{extension}"));
        names.iter().find_map(|name| files.file(name)).or_else(|| files.folder(&stem))
    }
}

/// Extensions of videos, in the order in which they are looked for.
const EXTENSIONS: [&str; 6] = ["mp4", "avi", "mov", "mkv", "webm", "gif"];

/// The files of a folder. A name is looked up as it is, and then with its extension in any case, as `clip.MP4`.
struct Listing {
    folder: PathBuf,
    /// The paths by the file's name with its extension in lower case.
    files: HashMap<String, PathBuf>,
}

impl Listing {
    fn read(folder: PathBuf) -> Result<Self, Error> {
        let entries = std::fs::read_dir(&folder).map_err(Error::io(&folder, "the videos cannot be listed"))?;
        let paths = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file());
        let named = paths.filter_map(|path| {
            let (stem, extension) = path.file_name()?.to_str()?.rsplit_once('.')?;
            Some((format!("{stem}.{}", extension.to_lowercase()), path))
        });
        Ok(Self { files: named.collect(), folder })
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        let exact = self.folder.join(name);
        if exact.is_file() { Some(exact) } else { self.files.get(name).cloned() }
    }

    fn folder(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(name)).filter(|path| path.is_dir())
    }
}

#[derive(Deserialize)]
struct Question {
    video_name: String,
    question: String,
    question_id: Value,
}

#[derive(Deserialize)]
struct Label {
    answer: String,
    question_id: Value,
}

/// A question with its label and the answer to it.
struct Answered<'a> {
    question: Question,
    label: Label,
    answer: &'a Answer,
}

/// A line of the official results.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a Value,
    question: &'a str,
    answer: &'a str,
    pred: &'a str,
}

impl Task for VideoQa {
    fn card(&self) -> Card {
        Card {
            name: self.name,
            about: self.about,
            data: self.data,
            headline: "accuracy",
            points: &["score"],
            max_new_tokens: 1024,
            upload: Some("merge.jsonl"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let folder = folder(data, self.folders, "the videos")?;
        let questions = questions(data)?;
        let files = Listing::read(folder)?;
        let all = questions.len();
        let (mut samples, mut missing) = (Vec::with_capacity(all), Vec::new());
        for Question { video_name, question, question_id } in questions {
            let Some(video) = self.video(&files, &video_name) else {
                missing.push(video_name);
                continue;
            };
            let clip_text = question.clone();
            let media = Some(MediaSource::Video(video));
            let sample = Sample {
                question_id,
                media,
                text: question,
                suffix: "",
                clip_text,
                category: String::new(),
                more: Map::new(),
            };
            samples.push(sample);
        }
        if let Some(first) = missing.first() {
            let extensions = EXTENSIONS.join(", ");
            let reason = format!(
                "the videos of {} of {} are missing, {}{} first ({extensions}, or a folder of frames)",
                missing.len(),
                count(all, "question"),
                self.prefix,
                secateur_weights::printable(first)
            );
            return Err(Error::data(&files.folder, reason));
        }
        Ok(samples)
    }

    fn uploaded(&self, data: &Path) -> Result<MustAnswer, Error> {
        Ok(MustAnswer::Ids(questions(data)?.into_iter().map(|question| question.question_id).collect()))
    }

    fn upload(&self, data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        let mut lines = Vec::new();
        for Answered { question, label, answer } in answered(data, answers)? {
            let (id, question) = (&question.question_id, &question.question);
            lines.extend(python_json::compact(&Line { id, question, answer: &label.answer, pred: &answer.text }));
            lines.push(b'\n');
        }
        Ok(lines)
    }

    fn judged(&self) -> Option<&dyn Judged> {
        Some(self)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let mut report = self.words(data, answers, protocol)?;
        report.notes.push("accuracy and score, which papers report, need a judge: --judge-url".to_owned());
        Ok(report)
    }
}

impl VideoQa {
    /// The report without a judge, by comparing words.
    fn words(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        llava_only(self, protocol, data)?;
        let answered = answered(data, answers)?;
        let share = |right: fn(&[String], &[String]) -> bool| {
            let words = |text: &str| words(text);
            let count =
                answered.iter().filter(|one| right(&words(&one.answer.text), &words(&one.label.answer))).count();
            count as f64 / answered.len().max(1) as f64
        };
        let metrics = vec![("exact".to_owned(), share(<[String]>::eq)), ("contains".to_owned(), share(contains))];
        let questions = questions(data)?;
        let ids = questions.iter().map(|question| &question.question_id);
        let notes = ById::new(answers).notes(ids, "are left out");
        let (n, marks) = (answered.len(), Marks::default());
        Ok(Report { benchmark: self.name, protocol, n, metrics, marks, notes })
    }
}

fn questions(data: &Path) -> Result<Vec<Question>, Error> {
    json(&one_of(data, &["test_q_1k.json", "test_q.json"])?)
}

/// The questions that have an answer, in the order of the questions.
fn answered<'a>(data: &Path, answers: &'a [Answer]) -> Result<Vec<Answered<'a>>, Error> {
    let questions = questions(data)?;
    let path = one_of(data, &["test_a_1k.json", "test_a.json"])?;
    let labels: Vec<Label> = json(&path)?;
    if questions.len() != labels.len() {
        let counts = format!("{} labels for {} questions", labels.len(), questions.len());
        return Err(Error::data(&path, format!("{counts}; they must be of the same release")));
    }
    let by_id = ById::new(answers);
    let mut found = Vec::new();
    for (i, (question, label)) in questions.into_iter().zip(labels).enumerate() {
        if question.question_id != label.question_id {
            let (label, question) = (&label.question_id, &question.question_id);
            return Err(Error::data(&path, format!("label {} is that of {label}, not of question {question}", i + 1)));
        }
        if let Some(answer) = by_id.get(&question.question_id) {
            found.push(Answered { question, label, answer });
        }
    }
    if found.is_empty() && !answers.is_empty() {
        return Err(Error::data(&path, "none of the answers is to one of these questions"));
    }
    Ok(found)
}

/// The words of a text in lower case; all characters but letters and digits separate words.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Whether the words of `label` stand one after another in `text`.
fn contains(text: &[String], label: &[String]) -> bool {
    !label.is_empty() && text.windows(label.len()).any(|words| words == label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_compared_without_case_and_punctuation() {
        let (text, label) = (words("The man's playing a Guitar."), words("playing a guitar"));
        assert!(contains(&text, &label) && !contains(&label, &text) && !contains(&text, &[]));
    }
}
