//! Benchmarks: questions, prompts, answer limits, scores.
//!
//! A benchmark is one file with a [`Task`] implementation and one row in [`TASKS`].

mod answer;
mod mme;
mod report;

use std::path::{Path, PathBuf};

pub use answer::Answer;
use clap::ValueEnum;
pub use mme::Mme;
pub use report::Report;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// Every benchmark.
pub const TASKS: &[&dyn Task] = &[&Mme];

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

/// Whose rules score the answers, where they differ.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// LLaVA's evaluation scripts, and the benchmark's own scorer that they call.
    Llava,
    /// lmms-eval.
    LmmsEval,
}

impl Protocol {
    /// As it is typed and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llava => "llava",
            Self::LmmsEval => "lmms-eval",
        }
    }
}

/// A question about a picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// As in the question file; a number or a string.
    pub question_id: Value,
    /// The picture.
    pub image: PathBuf,
    /// The question with its suffix, as the prompt holds it.
    pub text: String,
    /// The question as CDPruner's evaluation of this benchmark gives it to CLIP.
    pub clip_text: String,
}

/// A benchmark.
pub trait Task: Send + Sync {
    /// What `eval` and `score` take.
    fn name(&self) -> &'static str;
    /// One line for `secateur list benchmarks`.
    fn about(&self) -> &'static str;
    /// Where its data lies in a checkout of LLaVA.
    fn default_data(&self) -> &'static str;
    /// The longest answer.
    fn max_new_tokens(&self) -> usize;
    /// The questions in `data`, in the official order.
    ///
    /// # Errors
    /// When files are missing or not as they must be.
    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error>;
    /// Scores answers against the labels in `data`.
    ///
    /// # Errors
    /// When an answer has no label.
    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error>;
}
