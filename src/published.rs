//! The figures of papers, to compare with measured ones.
//!
//! `published.csv` has a row for each figure: model, method, tokens a crop or their share (none without pruning), benchmark, score,
//! source. The score of MME is that of perception, of ScienceQA that of questions with images, of POPE the mean F1, and
//! of the video benchmarks GPT-3.5's accuracy. All but MME's are in percent. The benchmark `retained` is the mean of what a paper's own set of benchmarks
//! retains of their scores without pruning, where single scores are not at hand.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::pruner::Budget;

/// A published figure.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Published {
    model: String,
    pub(crate) method: String,
    pub(crate) tokens: Option<Budget>,
    benchmark: String,
    /// The score in the unit of the paper.
    pub(crate) score: f64,
    /// The source of the figure.
    pub(crate) source: String,
}

/// The name of the mean over a paper's own benchmarks.
#[cfg(test)]
const RETAINED: &str = "retained";

static FIGURES: LazyLock<Vec<Published>> = LazyLock::new(|| {
    let mut reader = csv::Reader::from_reader(include_str!("published.csv").as_bytes());
    // A test reads every row.
    reader.deserialize().flatten().collect()
});

/// All figures.
pub(crate) fn all_published() -> &'static [Published] {
    &FIGURES
}

/// All figures for a checkpoint and a benchmark.
pub(crate) fn figures(checkpoint: &str, benchmark: &str) -> impl Iterator<Item = &'static Published> {
    FIGURES.iter().filter(move |figure| figure.is_of(checkpoint) && figure.benchmark == benchmark)
}

/// The published figure for a run with a checkpoint, by the last part of its path or id; `None` if no paper reports one.
pub(crate) fn published(
    checkpoint: &str,
    method: &str,
    tokens: Option<usize>,
    benchmark: &str,
) -> Option<&'static Published> {
    figures(checkpoint, benchmark).find(|figure| figure.method == method && figure.tokens == tokens.map(Budget::Tokens))
}

impl Published {
    fn is_of(&self, checkpoint: &str) -> bool {
        let name = checkpoint.to_lowercase().replace("llava-v", "llava-").replace("-vicuna", "");
        name.strip_prefix(&self.model).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pruner::{Params, method},
        task::task,
    };

    #[test]
    fn every_figure_is_of_a_known_method_and_benchmark() {
        let rows = include_str!("published.csv").lines().count() - 1;
        assert_eq!(FIGURES.len(), rows);
        for figure in FIGURES.iter() {
            assert!(method(&figure.method, Params::default()).is_ok(), "{figure:?}");
            assert!(figure.benchmark == RETAINED || task(&figure.benchmark).is_ok(), "{figure:?}");
            assert!(figure.score > 0.0 && (figure.score <= 100.0) == (figure.benchmark != "mme"), "{figure:?}");
        }
    }

    #[test]
    fn checkpoints_are_known_in_all_their_names() {
        for name in ["llava-v1.5-7b", "llava-1.5-7b-hf"] {
            let figure = published(name, "fastervlm", Some(29), "mme").unwrap();
            assert_eq!(figure.score, 1254.80, "{name}");
        }
        assert_eq!(published("llava-v1.6-vicuna-7b", "none", None, "pope").unwrap().score, 86.32);
        assert_eq!(published("llava-v1.5-13b", "none", None, "gqa").unwrap().score, 63.25);
        assert_eq!(published("demo", "none", None, "mme"), None);
    }
}
