//! The table of `secateur sweep`.

use std::{collections::BTreeSet, fmt::Write};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    eval::RunConfig,
    published::published,
    task::{Report, Task, Unit},
};

/// The rule of the averages.
const RULE: &str = "average: the mean over benchmarks of score / score without pruning, as in FasterVLM's tables";

/// A benchmark's score under a method at a budget.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Row {
    benchmark: String,
    method: String,
    tokens: Option<usize>,
    /// The benchmark's headline metric.
    metric: String,
    /// The value of the metric: shares in percent, points as they are; `None` where a server or a judge scores.
    score: Option<f64>,
    /// The score, where it is a share of right answers.
    accuracy: Option<f64>,
    /// The percentage of the score without pruning.
    percent: Option<f64>,
    /// The number of answers that were scored.
    n: usize,
    model: String,
    seed: u64,
    /// The run's folder, below that of the table.
    run: String,
    published: Option<f64>,
    source: Option<String>,
}

impl Row {
    /// The row of a run, with the figure that papers report for its model, if it can be compared.
    pub(super) fn new(config: &RunConfig, task: &dyn Task, report: &Report) -> Self {
        let metric = task.card().headline(config.protocol);
        let score = report.metrics.iter().find(|(name, _)| name == metric).map(|(_, score)| *score);
        let score = score.map(|score| task.card().unit.in_papers(score));
        let (model, tokens, benchmark) = (config.model_name(), config.kept(), task.name());
        let figure = config.is_usual().then(|| published(&model, &config.method, tokens, benchmark)).flatten();
        Self {
            benchmark: benchmark.to_owned(),
            method: config.method.clone(),
            tokens,
            metric: metric.to_owned(),
            score,
            accuracy: score.filter(|_| task.card().unit == Unit::Share),
            percent: None,
            n: report.n,
            seed: config.seed,
            run: config.folder_name(),
            published: figure.map(|figure| figure.score),
            source: figure.map(|figure| figure.source.clone()),
            model,
        }
    }
}

/// The mean over benchmarks for a method at a budget.
#[derive(Clone, Debug, Serialize)]
struct Average {
    benchmark: &'static str,
    method: String,
    tokens: Option<usize>,
    /// The mean of the percentages; `None` where a benchmark has none.
    percent: Option<f64>,
    /// The benchmarks that have one, of how many.
    with_percent: usize,
    benchmarks: usize,
}

/// The table: all rows, and the averages where there are several benchmarks.
pub(super) struct Table {
    rows: Vec<Row>,
    averages: Vec<Average>,
}

impl Table {
    /// The table of `rows`, and of those of `before` that are of other runs.
    pub(super) fn new(mut rows: Vec<Row>, before: Vec<Row>) -> Self {
        let others: Vec<Row> = before.into_iter().filter(|old| rows.iter().all(|row| row.run != old.run)).collect();
        rows.extend(others);
        // Runs with another number of answers are no base of each other.
        let base = |row: &Row| (row.benchmark.clone(), row.model.clone(), row.n);
        let whole: Vec<_> = rows
            .iter()
            .filter(|row| row.method == "none")
            .filter_map(|row| Some((base(row), row.score.filter(|&score| score > 0.0)?)))
            .collect();
        for row in &mut rows {
            let found = whole.iter().find(|(of, _)| *of == base(row)).map(|&(_, score)| score);
            row.percent = row.score.zip(found).map(|(score, base)| 100.0 * score / base);
        }
        let averages = averages(&rows);
        Self { rows, averages }
    }

    /// The rows of a table that was written before; none where there is no such table.
    pub(super) fn rows_of(json: &str) -> Vec<Row> {
        #[derive(Deserialize)]
        struct Written {
            rows: Vec<Row>,
        }
        serde_json::from_str(json).map(|Written { rows }| rows).unwrap_or_default()
    }

    /// The reasons why rows have no percentage, one for each benchmark.
    fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|row| row.percent.is_none()) {
            let whole = || self.rows.iter().find(|base| base.method == "none" && base.benchmark == row.benchmark);
            let reason = match (row.score, whole().and_then(|base| base.score)) {
                (None, _) => {
                    "no answer could be scored, or a server or a judge scores them; the run folders have the files"
                }
                (Some(_), None) => "the run without pruning has no score",
                (Some(_), Some(0.0)) => "the score without pruning is 0",
                (Some(_), Some(_)) => "the run without pruning has other questions",
            };
            let reason = format!("–: {}: {reason}", row.benchmark);
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        reasons
    }

    /// The table as text for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let width = self.rows.iter().map(|row| row.method.len()).max().unwrap_or(0).max("method".len());
        let mut line = |cells: [&str; 7]| {
            let [benchmark, method, tokens, score, percent, published, source] = cells;
            let line = format!(
                "{benchmark:<12} {method:<width$} {tokens:>6} {score:>9} {percent:>7} {published:>9}  {source}"
            );
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        line(["benchmark", "method", "tokens", "score", "%", "published", "source"]);
        let number =
            |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |value| format!("{value:.digits$}"));
        let count = |tokens: Option<usize>| tokens.map_or("all".to_owned(), |tokens| tokens.to_string());
        for row in &self.rows {
            let published = row.published.map_or(String::new(), |value| format!("{value:.2}"));
            let (score, percent) = (number(row.score, 2), number(row.percent, 1));
            let source = row.source.as_deref().unwrap_or_default();
            line([&row.benchmark, &row.method, &count(row.tokens), &score, &percent, &published, source]);
        }
        for Average { benchmark, method, tokens, percent, with_percent, benchmarks } in &self.averages {
            let part = match percent {
                None => format!("{with_percent} of {benchmarks} benchmarks have a %"),
                Some(_) => String::new(),
            };
            line([benchmark, method, &count(*tokens), "", &number(*percent, 1), "", &part]);
        }
        let rule = (!self.averages.is_empty()).then(|| RULE.to_owned());
        text += &rule.into_iter().chain(self.reasons()).collect::<Vec<_>>().join("\n");
        text.truncate(text.trim_end().len());
        text
    }

    /// The table as CSV for spreadsheets.
    pub(super) fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in &self.rows {
            writer.serialize(row)?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    /// The table as JSON for scripts.
    pub(super) fn json(&self) -> Value {
        json!({ "rows": self.rows, "averages": self.averages, "rule": RULE })
    }
}

/// The averages of methods at budgets over benchmarks; none where there is one benchmark.
fn averages(rows: &[Row]) -> Vec<Average> {
    let names: BTreeSet<&str> = rows.iter().map(|row| row.benchmark.as_str()).collect();
    let mut averages: Vec<Average> = Vec::new();
    for row in rows.iter().filter(|_| names.len() > 1) {
        let is_same = |method: &str, tokens: Option<usize>| (method, tokens) == (row.method.as_str(), row.tokens);
        if averages.iter().any(|other| is_same(&other.method, other.tokens)) {
            continue;
        }
        let percents: Vec<f64> =
            rows.iter().filter(|row| is_same(&row.method, row.tokens)).filter_map(|row| row.percent).collect();
        let (method, tokens, benchmarks) = (row.method.clone(), row.tokens, names.len());
        let is_whole = percents.len() == benchmarks;
        let percent = is_whole.then(|| percents.iter().sum::<f64>() / benchmarks as f64);
        averages.push(Average {
            benchmark: "average",
            method,
            tokens,
            percent,
            with_percent: percents.len(),
            benchmarks,
        });
    }
    averages
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    fn row(benchmark: &str, method: &str, tokens: Option<usize>, score: Option<f64>) -> Row {
        let run = format!("{benchmark}-llava-v1.5-7b-{method}-{tokens:?}");
        from_value(json!({
            "benchmark": benchmark, "method": method, "tokens": tokens, "metric": "acc", "score": score, "n": 9,
            "model": "llava-v1.5-7b", "seed": 0, "run": run,
        }))
        .unwrap()
    }

    #[test]
    fn averages_are_means_of_ratios() {
        let whole = vec![
            row("mme", "none", None, Some(1500.0)),
            row("mme", "fastervlm", Some(29), Some(1200.0)),
            row("gqa", "none", None, Some(50.0)),
            row("gqa", "fastervlm", Some(29), Some(50.0)),
        ];
        let table = Table::new(whole.clone(), Vec::new());
        assert_eq!(table.averages[1].percent, Some(90.0));
        let csv = table.csv().unwrap();
        assert_eq!(csv.lines().count(), 1 + 4);
        assert!(csv.starts_with("benchmark,method,tokens,metric,score,accuracy,percent,n,model,seed,run,"), "{csv}");

        // A benchmark without a score leaves no average that looks like the others.
        let more = [row("mm-vet", "none", None, None), row("mm-vet", "fastervlm", Some(29), None)];
        let table = Table::new(whole.iter().cloned().chain(more).collect(), Vec::new());
        assert_eq!((table.averages[1].percent, table.averages[1].with_percent), (None, 2));
        assert!(table.text().contains("2 of 3 benchmarks have a %"), "{}", table.text());
        assert!(table.text().contains("mm-vet: no answer could be scored"), "{}", table.text());
    }

    #[test]
    fn one_benchmark_has_no_average_and_earlier_runs_stay() {
        let before = vec![row("gqa", "none", None, Some(50.0)), row("gqa", "grid", Some(64), Some(40.0))];
        let written = serde_json::to_string(&Table::new(before, Vec::new()).json()).unwrap();
        let rows = vec![row("gqa", "none", None, Some(60.0)), row("gqa", "random", Some(64), Some(30.0))];
        let table = Table::new(rows, Table::rows_of(&written));
        let found: Vec<_> = table.rows.iter().map(|row| (row.method.as_str(), row.score, row.percent)).collect();
        let grid = 100.0 * 40.0 / 60.0;
        let expected = [("none", 60.0, 100.0), ("random", 30.0, 50.0), ("grid", 40.0, grid)]
            .map(|(m, s, p)| (m, Some(s), Some(p)));
        assert_eq!(found, expected);
        assert!(table.averages.is_empty() && !table.text().contains("average"), "{}", table.text());
        assert!(Table::rows_of("not a table").is_empty());
    }
}
