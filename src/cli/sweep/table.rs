//! The table of `secateur sweep`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::row::{Row, over_seeds};
use crate::cli::json::readable;

/// The rule of the averages.
pub(super) const RULE: &str =
    "average: the mean over benchmarks of score / score without pruning, as in FasterVLM's tables";

/// The mean over benchmarks for a method at a budget.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Average {
    benchmark: &'static str,
    pub(super) method: String,
    pub(super) tokens: Option<usize>,
    /// The mean of the percentages; `None` where a benchmark has none.
    pub(super) percent: Option<f64>,
    /// The benchmarks that have one, of how many.
    pub(super) with_percent: usize,
    pub(super) benchmarks: usize,
}

/// The table: all rows, and the averages where there are several benchmarks.
pub(super) struct Table {
    /// A row for each run.
    runs: Vec<Row>,
    /// The rows that are shown: runs that differ by their seeds are one.
    pub(super) rows: Vec<Row>,
    pub(super) averages: Vec<Average>,
}

impl Table {
    /// The table of `runs`, and of those of `before` that are other runs.
    pub(super) fn new(mut runs: Vec<Row>, before: Vec<Row>) -> Self {
        let others: Vec<Row> = before.into_iter().filter(|old| runs.iter().all(|row| row.run != old.run)).collect();
        runs.extend(others);
        let mut rows = over_seeds(&runs);
        for rows in [&mut runs, &mut rows] {
            add_percentages(rows);
        }
        let averages = averages(&rows);
        Self { runs, rows, averages }
    }

    /// The rows of the runs in a table that was written before; none where there is no such table.
    pub(super) fn rows_of(json: &str) -> Vec<Row> {
        #[derive(Deserialize)]
        struct Written {
            runs: Option<Vec<Row>>,
            rows: Vec<Row>,
        }
        serde_json::from_str(json).map(|Written { runs, rows }| runs.unwrap_or(rows)).unwrap_or_default()
    }

    /// The reasons why rows have no percentage, one for each benchmark.
    pub(super) fn reasons(&self) -> Vec<String> {
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
        json!({ "rows": self.rows, "runs": self.runs, "averages": self.averages, "rule": RULE })
    }
}

/// Gives every row its share of the score without pruning. Runs with another number of answers are no base of each other.
fn add_percentages(rows: &mut [Row]) {
    let base = |row: &Row| (row.benchmark.clone(), row.model.clone(), row.n);
    let whole: Vec<_> = rows
        .iter()
        .filter(|row| row.method == "none")
        .filter_map(|row| Some((base(row), row.score.filter(|&score| score > 0.0)?)))
        .collect();
    for row in rows {
        let found = whole.iter().find(|(of, _)| *of == base(row)).map(|&(_, score)| score);
        row.percent = row.score.zip(found).map(|(score, base)| readable(100.0 * score / base));
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
        let percent = is_whole.then(|| readable(percents.iter().sum::<f64>() / benchmarks as f64));
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
    use crate::cli::sweep::layout::Layout;

    fn text(table: &Table) -> String {
        Layout::new(table).text()
    }

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
        assert!(csv.starts_with("benchmark,method,tokens,metric,score,standard_error,accuracy,percent,n,model,seed,seeds,half_width,run,"), "{csv}");

        // A benchmark without a score leaves no average that looks like the others.
        let more = [row("mm-vet", "none", None, None), row("mm-vet", "fastervlm", Some(29), None)];
        let table = Table::new(whole.iter().cloned().chain(more).collect(), Vec::new());
        assert_eq!((table.averages[1].percent, table.averages[1].with_percent), (None, 2));
        assert!(text(&table).contains("2 of 3"), "{}", text(&table));
        assert!(text(&table).contains("mm-vet: no answer could be scored"), "{}", text(&table));
    }

    #[test]
    fn one_benchmark_has_no_average_and_earlier_runs_stay() {
        let before = vec![row("gqa", "none", None, Some(50.0)), row("gqa", "grid", Some(64), Some(40.0))];
        let written = serde_json::to_string(&Table::new(before, Vec::new()).json()).unwrap();
        let rows = vec![row("gqa", "none", None, Some(60.0)), row("gqa", "random", Some(64), Some(30.0))];
        let table = Table::new(rows, Table::rows_of(&written));
        let found: Vec<_> = table.rows.iter().map(|row| (row.method.as_str(), row.score, row.percent)).collect();
        let grid = 66.6666666667;
        let expected = [("none", 60.0, 100.0), ("random", 30.0, 50.0), ("grid", 40.0, grid)]
            .map(|(m, s, p)| (m, Some(s), Some(p)));
        assert_eq!(found, expected);
        assert!(table.averages.is_empty() && !text(&table).contains("average"), "{}", text(&table));
        assert!(Table::rows_of("not a table").is_empty());
    }
}
