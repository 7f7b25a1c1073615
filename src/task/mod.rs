//! Benchmarks: questions, prompts, answer limits, scores.
//!
//! A benchmark is one file with a [`Task`] implementation and one row in [`TASKS`].

mod answer;
mod demo;
mod evalai;
mod gqa;
mod ids;
mod judged;
mod llava_bench;
mod mmbench;
mod mme;
mod mmvet;
mod pairs;
mod pope;
mod python_json;
mod questions;
mod report;
mod scienceqa;
mod seed;
mod spread;
mod textvqa;
mod unread;
mod videoqa;
mod vizwiz;
mod vqav2;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub use answer::Answer;
pub use demo::Demo;
pub use evalai::normalise;
pub use gqa::Gqa;
#[cfg(feature = "cli")]
pub(crate) use ids::key;
pub use judged::Judged;
pub use llava_bench::LlavaBench;
pub use mmbench::MmBench;
pub use mme::Mme;
pub use mmvet::MmVet;
pub use pope::Pope;
pub use report::Report;
pub use scienceqa::ScienceQa;
pub use seed::Seed;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
pub use spread::spread;
pub use textvqa::TextVqa;
pub use unread::{MustAnswer, holes, unread};
pub use videoqa::VideoQa;
pub use vizwiz::VizWiz;
pub use vqav2::VqaV2;

use crate::{
    Error,
    dataset::{self, DataSet},
    demo::Scene,
    image::{decode, decode_bytes},
    video::{FrameRule, Media, Video},
};

/// Every benchmark.
pub const TASKS: &[&dyn Task] = &[
    &VqaV2,
    &Gqa,
    &VizWiz,
    &ScienceQa,
    &TextVqa,
    &Pope,
    &Mme,
    &MmBench { chinese: false },
    &MmBench { chinese: true },
    &MmVet,
    &Seed,
    &LlavaBench,
    &VideoQa::TGIF,
    &VideoQa::MSVD,
    &VideoQa::MSRVTT,
    &VideoQa::ACTIVITYNET,
    &Demo,
];

/// The benchmark called `name`.
///
/// # Errors
/// When there is none of that name.
pub fn task(name: &str) -> Result<&'static dyn Task, Error> {
    TASKS.iter().find(|task| task.name() == name).copied().ok_or_else(|| Error::UnknownBenchmark {
        name: name.to_owned(),
        known: TASKS.iter().map(|task| task.name()).collect::<Vec<_>>().join(", "),
    })
}

/// The unit of a benchmark's headline metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A share from 0 to 1, which papers give in percent.
    Share,
    /// Points.
    Points,
}

impl Unit {
    /// The score as papers write it: shares in percent.
    pub fn in_papers(self, score: f64) -> f64 {
        match self {
            Self::Share => 100.0 * score,
            Self::Points => score,
        }
    }
}

/// The rules that score the answers: LLaVA's or lmms-eval's.
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// LLaVA's evaluation scripts, and the benchmark's own scorer that they call.
    Llava,
    /// The rules of lmms-eval.
    LmmsEval,
}

impl Protocol {
    /// The name that is typed and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::LmmsEval => "lmms-eval",
        }
    }
}

/// A question, most often about an image or a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The id in the question file; a number or a string.
    pub question_id: Value,
    /// The image or video; some questions of ScienceQA have none.
    pub media: Option<MediaSource>,
    /// The question as an answers file holds it.
    pub text: String,
    /// Text that the prompt has after the question, and the answers file has not.
    pub suffix: &'static str,
    /// The question as CDPruner's evaluation of this benchmark gives it to CLIP.
    pub clip_text: String,
    /// The category of the question; empty where the benchmark has none.
    pub category: String,
    /// Fields that this benchmark's answer lines have beside the usual ones.
    pub more: Map<String, Value>,
}

/// An image or a video that is read when its question is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum MediaSource {
    /// An image file.
    File(PathBuf),
    /// The bytes of a file that lies in another one, at `place`.
    Inline {
        /// The place where the bytes were found, for errors.
        place: PathBuf,
        /// The bytes of the file.
        bytes: Arc<[u8]>,
    },
    /// A scene that is drawn.
    Scene(Scene),
    /// A video: a file, or a folder of its frames.
    Video(PathBuf),
}

impl MediaSource {
    /// Reads the image, or the frames of the video that `frames` names.
    ///
    /// # Errors
    /// When the file is missing or no image, or when it is a video and the model takes none.
    pub fn open(&self, frames: Option<FrameRule>) -> Result<Media, Error> {
        match self {
            Self::File(path) => Ok(decode(path)?.into()),
            Self::Inline { place, bytes } => Ok(decode_bytes(place, bytes)?.into()),
            Self::Scene(scene) => Ok(scene.draw().into()),
            Self::Video(path) => {
                let frames = frames.ok_or_else(|| Error::NoVideo { path: path.clone() })?;
                Ok(Media::Video(Video::read(path, frames)?))
            }
        }
    }
}

/// The description of a benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// The name that `eval` and `score` take.
    pub name: &'static str,
    /// One line for `secateur list benchmarks`.
    pub about: &'static str,
    /// The folder of the benchmark's data in a checkout of LLaVA; empty if there is none to look for.
    pub data: &'static str,
    /// The metric that papers report. A report may lack it: some need a server or a judge.
    pub headline: &'static str,
    /// The metric that papers report under lmms-eval's rules, if it has another name there.
    pub headline_of_lmms_eval: Option<&'static str>,
    /// The unit of the headline metric.
    pub unit: Unit,
    /// Metrics in points where the headline metric is a share.
    pub points: &'static [&'static str],
    /// Whether questions about an image that stand one after another are scored together.
    pub together: bool,
    /// The length of the longest answer, in tokens.
    pub max_new_tokens: usize,
    /// The benchmark's data set on the hub, if there is one that can be unpacked into LLaVA's layout.
    pub hub: Option<DataSet>,
    /// The name of the file that the benchmark's server takes; `None` if there is no server.
    pub upload: Option<&'static str>,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            name: "",
            about: "",
            data: "",
            headline: "",
            headline_of_lmms_eval: None,
            unit: Unit::Share,
            points: &[],
            together: false,
            max_new_tokens: 128,
            hub: None,
            upload: None,
        }
    }
}

impl Card {
    /// The unit of a metric.
    pub fn unit_of(&self, metric: &str) -> Unit {
        if self.points.contains(&metric) { Unit::Points } else { self.unit }
    }

    /// The metric that papers report under the rules of `protocol`.
    pub fn headline(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Llava => self.headline,
            Protocol::LmmsEval => self.headline_of_lmms_eval.unwrap_or(self.headline),
        }
    }
}

/// A benchmark.
pub trait Task: Send + Sync {
    /// The description of the benchmark.
    fn card(&self) -> Card;
    /// The name that `eval` and `score` take.
    fn name(&self) -> &'static str {
        self.card().name
    }
    /// The questions in `data`, in the official order.
    ///
    /// # Errors
    /// When files are missing or damaged.
    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error>;
    /// Reads an answers file, and counts the lines that are skipped.
    ///
    /// # Errors
    /// When the file cannot be read, a line is no answer, or there is no answer.
    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        Ok((Answer::read_all(path)?, 0))
    }
    /// Whether the benchmark's files are needed to score these answers.
    fn needs_data(&self, _answers: &[Answer], _protocol: Protocol) -> bool {
        true
    }
    /// The file for the benchmark's server, as LLaVA's converter writes it (JSON byte for byte).
    ///
    /// # Errors
    /// When the questions cannot be read, or one that must be answered is not.
    fn upload(&self, _data: &Path, _answers: &[Answer]) -> Result<Vec<u8>, Error> {
        Ok(Vec::new())
    }
    /// The questions that the file for the server must answer.
    ///
    /// # Errors
    /// When the questions cannot be read.
    fn uploaded(&self, _data: &Path) -> Result<MustAnswer, Error> {
        Ok(MustAnswer::Checked)
    }
    /// The reason why the rule cannot read an answer that is not empty, as a verb in the plural; `None` if it can.
    fn lacks(&self, _answer: &Answer, _protocol: Protocol) -> Option<&'static str> {
        None
    }
    /// The word for how an answer counts that the rule cannot read.
    fn unread_as(&self, _protocol: Protocol) -> &'static str {
        "wrong"
    }
    /// The judge's part of the benchmark; `None` if no language model grades its answers.
    fn judged(&self) -> Option<&dyn Judged> {
        None
    }
    /// Scores answers against the labels in `data`.
    ///
    /// # Errors
    /// When the labels are missing or not those of the questions.
    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error>;
}

/// The folder of a benchmark's data set `set`, fetched and unpacked if it is not there. Data that can be unpacked but
/// not asked or scored is refused: it would stand in the way of every later run.
///
/// # Errors
/// As [`dataset::fetch`], or when the questions or the labels cannot be read.
pub fn fetch(task: &dyn Task, set: DataSet) -> Result<PathBuf, Error> {
    dataset::fetch(task.name(), set, |folder| {
        let samples = task.samples(folder)?;
        let blank: Vec<Answer> = samples.iter().map(|sample| Answer::new(sample, String::new(), "")).collect();
        task.score(folder, &blank, Protocol::Llava).map(|_| ())
    })
}

/// Refuses lmms-eval's rules, for benchmarks that only LLaVA's rules score here.
fn llava_only(task: &dyn Task, protocol: Protocol, data: &Path) -> Result<(), Error> {
    match protocol {
        Protocol::Llava => Ok(()),
        Protocol::LmmsEval => {
            let place = if data.as_os_str().is_empty() { Path::new(task.name()) } else { data };
            Err(Error::data(place, format!("{} is scored by LLaVA's rules only; leave out --protocol", task.name())))
        }
    }
}
