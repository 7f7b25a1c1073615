//! A row of a sweep's table: a benchmark's score under a method at a budget.

use serde::{Deserialize, Serialize};

use crate::{
    cli::json::readable,
    eval::{CostSummary, RunConfig},
    published::published,
    statistics::seeds,
    task::{Report, Task, Unit},
};

/// A benchmark's score under a method at a budget.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Row {
    pub(super) benchmark: String,
    pub(super) method: String,
    pub(super) tokens: Option<usize>,
    /// The benchmark's headline metric.
    pub(super) metric: String,
    /// The value of the metric: shares in percent, points as they are; `None` where a server or a judge scores.
    pub(super) score: Option<f64>,
    /// The standard error of the score: over the questions, and over the seeds where there are several.
    #[serde(default)]
    pub(super) standard_error: Option<f64>,
    /// The score, where it is a share of right answers.
    pub(super) accuracy: Option<f64>,
    /// The percentage of the score without pruning.
    pub(super) percent: Option<f64>,
    /// The number of answers that were scored.
    pub(super) n: usize,
    pub(super) model: String,
    /// The seed, or the first of several.
    pub(super) seed: u64,
    /// The number of seeds, of which the score is the mean.
    #[serde(default = "one")]
    pub(super) seeds: usize,
    /// Half the width of the 95 % interval of a mean over seeds, by Student's distribution.
    #[serde(default)]
    pub(super) half_width: Option<f64>,
    /// The run's folder, below that of the table; with spaces between several.
    pub(super) run: String,
    /// Milliseconds to the first token, the median of the questions, on the machine of the run.
    #[serde(default)]
    pub(super) ttft_ms: Option<f64>,
    /// Where the time was measured.
    #[serde(default)]
    pub(super) place: Option<String>,
    pub(super) published: Option<f64>,
    pub(super) source: Option<String>,
}

fn one() -> usize {
    1
}

impl Row {
    /// The row of a run, with the figure that papers report for its model, if it can be compared.
    pub(super) fn new(config: &RunConfig, task: &dyn Task, report: &Report, cost: Option<&CostSummary>) -> Self {
        let card = task.card();
        let metric = card.headline(config.protocol);
        let score = report.metrics.iter().find(|(name, _)| name == metric).map(|(_, score)| *score);
        let in_papers = |score: f64| readable(card.unit.in_papers(score));
        let score = score.map(in_papers);
        let error = report.marks.standard_error().filter(|_| report.marks.metric == metric);
        let (model, tokens, benchmark) = (config.model_name(), config.kept(), task.name());
        let figure = config.is_usual().then(|| published(&model, &config.method, tokens, benchmark)).flatten();
        Self {
            benchmark: benchmark.to_owned(),
            method: config.method.clone(),
            tokens,
            metric: metric.to_owned(),
            score,
            standard_error: error.map(in_papers),
            accuracy: score.filter(|_| card.unit == Unit::Share),
            percent: None,
            n: report.n,
            seed: config.seed,
            seeds: 1,
            half_width: None,
            run: config.folder_name(),
            ttft_ms: cost.map(|cost| readable(cost.ttft_ms_median)),
            place: cost.and_then(CostSummary::place),
            published: figure.map(|figure| figure.score),
            source: figure.map(|figure| figure.source.clone()),
            model,
        }
    }

    /// The benchmark, the method, the budget and the number of questions: rows of these in common differ by the seed only.
    fn key(&self) -> (&str, &str, &str, Option<usize>, usize) {
        (&self.benchmark, &self.model, &self.method, self.tokens, self.n)
    }
}

/// The rows with those that differ by their seeds as one, at the place of the first.
pub(super) fn over_seeds(rows: &[Row]) -> Vec<Row> {
    let mut shown: Vec<Row> = Vec::new();
    for row in rows {
        if shown.iter().any(|other| other.key() == row.key()) {
            continue;
        }
        let same: Vec<&Row> = rows.iter().filter(|other| other.key() == row.key()).collect();
        let scores: Option<Vec<f64>> = same.iter().map(|row| row.score).collect();
        shown.push(match scores.and_then(|scores| seeds(&scores)) {
            None => row.clone(),
            Some(found) => Row {
                score: Some(readable(found.mean)),
                standard_error: Some(readable(found.standard_error)),
                half_width: Some(readable(found.half_width)),
                accuracy: row.accuracy.map(|_| readable(found.mean)),
                seeds: same.len(),
                run: same.iter().map(|row| row.run.as_str()).collect::<Vec<_>>().join(" "),
                ..row.clone()
            },
        });
    }
    shown
}
