//! The table of `secateur sweep`.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::{published::published, task::Task};

/// The rule of the averages.
const RULE: &str = "average: the mean over benchmarks of score / score without pruning, as in FasterVLM's tables";

/// A benchmark's score under a method at a budget.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    benchmark: &'static str,
    method: &'static str,
    tokens: Option<usize>,
    /// The score: shares in percent, points as they are; `None` where a server or a judge scores.
    accuracy: Option<f64>,
    /// The percentage of the score without pruning.
    percent: Option<f64>,
    published: Option<f64>,
    source: Option<&'static str>,
}

impl Row {
    /// A row with the figure that papers report for `model`, if it can be compared.
    pub(super) fn new(
        model: Option<&str>,
        task: &dyn Task,
        method: &'static str,
        tokens: Option<usize>,
        score: Option<f64>,
    ) -> Self {
        let (benchmark, accuracy) = (task.name(), score.map(|score| task.card().unit.in_papers(score)));
        let figure = model.and_then(|model| published(model, method, tokens, benchmark));
        let (published, source) = (figure.map(|figure| figure.score), figure.map(|figure| figure.source.as_str()));
        Self { benchmark, method, tokens, accuracy, percent: None, published, source }
    }
}

/// The table: all rows, and the averages.
pub(super) struct Table {
    rows: Vec<Row>,
    averages: Vec<Row>,
}

impl Table {
    pub(super) fn new(mut rows: Vec<Row>) -> Self {
        let whole: Vec<(&str, f64)> = rows
            .iter()
            .filter(|row| row.method == "none")
            .filter_map(|row| Some((row.benchmark, row.accuracy?)))
            .collect();
        for row in &mut rows {
            let base = whole.iter().find(|(name, _)| *name == row.benchmark).map(|&(_, score)| score);
            row.percent = row.accuracy.zip(base.filter(|&base| base > 0.0)).map(|(score, base)| 100.0 * score / base);
        }
        let mut averages: Vec<Row> = Vec::new();
        for row in &rows {
            if averages.iter().any(|other| (other.method, other.tokens) == (row.method, row.tokens)) {
                continue;
            }
            let same = rows.iter().filter(|other| (other.method, other.tokens) == (row.method, row.tokens));
            let percents: Vec<f64> = same.filter_map(|row| row.percent).collect();
            let percent = (!percents.is_empty()).then(|| percents.iter().sum::<f64>() / percents.len() as f64);
            let empty = Row { accuracy: None, published: None, source: None, ..row.clone() };
            averages.push(Row { benchmark: "average", percent, ..empty });
        }
        Self { rows, averages }
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().chain(&self.averages)
    }

    /// The table as text for people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let width = self.all().map(|row| row.method.len()).max().unwrap_or(0).max("method".len());
        let mut line = |cells: [&str; 7]| {
            let [benchmark, method, tokens, score, percent, published, source] = cells;
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{}",
                format!(
                    "{benchmark:<12} {method:<width$} {tokens:>6} {score:>9} {percent:>7} {published:>9}  {source}"
                )
                .trim_end()
            );
        };
        line(["benchmark", "method", "tokens", "score", "%", "published", "source"]);
        let number =
            |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |value| format!("{value:.digits$}"));
        for row in self.all() {
            let tokens = row.tokens.map_or("all".to_owned(), |tokens| tokens.to_string());
            let score = if row.benchmark == "average" { String::new() } else { number(row.accuracy, 2) };
            let published = row.published.map_or(String::new(), |value| format!("{value:.2}"));
            let percent = number(row.percent, 1);
            line([row.benchmark, row.method, &tokens, &score, &percent, &published, row.source.unwrap_or_default()]);
        }
        let _ = write!(text, "{RULE}");
        if self.rows.iter().any(|row| row.accuracy.is_none()) {
            let _ = write!(
                text,
                "\n–: no answer could be scored, or a server or a judge scores them; the run folders have the files"
            );
        }
        text
    }

    /// The table as CSV for spreadsheets.
    pub(super) fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        for row in self.all() {
            writer.serialize(row)?;
        }
        Ok(String::from_utf8(writer.into_inner()?)?)
    }

    /// The table as JSON for scripts.
    pub(super) fn json(&self) -> Value {
        json!({ "rows": self.rows, "averages": self.averages, "rule": RULE })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::task;

    #[test]
    fn averages_are_means_of_ratios() {
        let row = |benchmark, method, tokens, score| {
            Row::new(Some("llava-v1.5-7b"), task(benchmark).unwrap(), method, tokens, score)
        };
        let table = Table::new(vec![
            row("mme", "none", None, Some(1500.0)),
            row("mme", "fastervlm", Some(29), Some(1200.0)),
            row("gqa", "none", None, Some(0.5)),
            row("gqa", "fastervlm", Some(29), Some(0.5)),
            row("mm-vet", "none", None, None),
            row("mm-vet", "fastervlm", Some(29), None),
        ]);
        assert_eq!(table.averages[1].percent, Some(90.0));
        assert_eq!((table.rows[2].accuracy, table.rows[1].published), (Some(50.0), Some(1254.80)));
        let csv = table.csv().unwrap();
        assert_eq!(csv.lines().count(), 1 + 6 + 2);
        assert!(csv.starts_with("benchmark,method,tokens,accuracy,percent,published,source\n"), "{csv}");
    }
}
