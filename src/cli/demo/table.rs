//! The table of `secateur demo`: methods down, budgets across.

use std::{collections::BTreeSet, fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::{
    cli::{median, ms},
    statistics::{Marks, compare, seeds},
};

/// A method at a budget.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) tokens: usize,
    /// The accuracy in percent, the mean of all seeds.
    pub(super) accuracy: f64,
    /// The standard error of the accuracy: over the questions, and over the seeds where there are several.
    pub(super) standard_error: f64,
    pub(super) seeds: usize,
    /// The marks of the answers, with the first seed.
    pub(super) marks: Marks,
    pub(super) times: Times,
    /// The operations of the decoder's prefill over the visual tokens.
    pub(super) flops: u64,
    /// The bytes of the visual tokens' keys and values.
    pub(super) kv_bytes: u64,
}

/// The time to the first token, stage by stage.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) vision: Duration,
    pub(super) prune: Duration,
    pub(super) prefill: Duration,
    pub(super) first_token: Duration,
}

impl Times {
    /// The median of each stage.
    pub(super) fn medians(times: &[Self]) -> Self {
        let median = |of: fn(&Self) -> Duration| median(times.iter().map(of)).unwrap_or_default();
        Self {
            vision: median(|times| times.vision),
            prune: median(|times| times.prune),
            prefill: median(|times| times.prefill),
            first_token: median(|times| times.first_token),
        }
    }
}

/// All rows; the first is without pruning.
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// The table with rows that differ by their seeds as one, at the place of the first.
    pub(super) fn over_seeds(self) -> Self {
        let mut rows: Vec<Row> = Vec::new();
        let mut scores: Vec<Vec<f64>> = Vec::new();
        for row in self.rows {
            match rows.iter().position(|other| (other.method, other.tokens) == (row.method, row.tokens)) {
                Some(at) => scores[at].push(row.accuracy),
                None => {
                    scores.push(vec![row.accuracy]);
                    rows.push(row);
                }
            }
        }
        for (row, scores) in rows.iter_mut().zip(&scores) {
            if let Some(found) = seeds(scores) {
                (row.accuracy, row.standard_error, row.seeds) = (found.mean, found.standard_error, scores.len());
            }
        }
        Self { rows }
    }

    /// A sentence about the best method at a budget, and those that are as good for all that the questions tell.
    pub(super) fn winner(&self, tokens: usize) -> Option<String> {
        let own: Vec<&Row> = self.rows.iter().filter(|row| row.tokens == tokens).collect();
        let best = *own.iter().rev().max_by(|a, b| a.accuracy.total_cmp(&b.accuracy))?;
        let is_worse = |row: &&&Row| compare(&best.marks, &row.marks).is_some_and(|found| found.clear);
        let (worse, equal): (Vec<&Row>, Vec<&Row>) =
            own.iter().copied().filter(|row| row.method != best.method).partition(|row| is_worse(&row));
        let names = |rows: &[&Row]| rows.iter().map(|row| row.method).collect::<Vec<_>>().join(", ");
        let worse = if worse.is_empty() {
            String::new()
        } else {
            format!(" The questions show it to be better than {}.", names(&worse))
        };
        let equal = match equal.is_empty() {
            true => String::new(),
            false => format!(" The questions do not tell it apart from {}.", names(&equal)),
        };
        let (name, accuracy, error) = (best.method, best.accuracy, best.standard_error);
        Some(format!("At {tokens} tokens {name} wins: {accuracy:.1} ± {error:.1} % right.{worse}{equal}"))
    }

    /// The table as text for people.
    pub(super) fn text(&self, backend: &str, questions: usize) -> String {
        let mut budgets: BTreeSet<usize> = self.rows.iter().map(|row| row.tokens).collect();
        let mut columns = Vec::new();
        while let Some(largest) = budgets.pop_last() {
            columns.push(largest);
        }
        let mut methods: Vec<&str> = self.rows.iter().map(|row| row.method).collect();
        methods.dedup();
        let width = methods.iter().map(|name| name.len()).max().unwrap_or(0) + 2;
        let find = |method: &str, tokens| self.rows.iter().find(|row| row.method == method && row.tokens == tokens);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let mut line = |name: &str, cell: &dyn Fn(usize) -> String| {
            let cells: String = columns.iter().map(|&tokens| format!("{:>14}", cell(tokens))).collect();
            let _ = writeln!(text, "{}", format!("{name:<width$}{cells}").trim_end());
        };
        line("", &|_| String::new());
        line("visual tokens", &|tokens| tokens.to_string());
        line(&format!("right answers, % of {questions} questions ± standard error; 50 is chance"), &|_| String::new());
        for method in &methods {
            let cell = |tokens| {
                find(method, tokens)
                    .map_or_else(String::new, |row| format!("{:.1} ± {:.1}", row.accuracy, row.standard_error))
            };
            line(&format!("  {method}"), &cell);
        }
        line(&format!("milliseconds to the first token on {backend}, and how many times as fast"), &|_| String::new());
        let slowest = self.rows.first().map_or(0.0, |row| ms(row.times.first_token));
        for method in &methods {
            let cell = |tokens| {
                find(method, tokens).map_or_else(String::new, |row| {
                    let time = ms(row.times.first_token);
                    format!("{time:.1} {:>4.1}×", slowest / time)
                })
            };
            line(&format!("  {method}"), &cell);
        }
        let mut costs = |title: &str, cost: &dyn Fn(&Row) -> String| {
            line(title, &|_| String::new());
            let cells = |method: &str| -> Vec<String> {
                columns.iter().map(|&tokens| find(method, tokens).map_or_else(String::new, cost)).collect()
            };
            // Most methods cost the same, and then share one line.
            let common = methods.get(1).map(|method| cells(method));
            for (i, method) in methods.iter().enumerate() {
                let own = cells(method);
                if i > 1 && common.as_ref() == Some(&own) {
                    continue;
                }
                let name = if i == 1 { "others" } else { method };
                let cell =
                    |tokens| columns.iter().position(|&t| t == tokens).map_or_else(String::new, |at| own[at].clone());
                line(&format!("  {name}"), &cell);
            }
        };
        costs("GFLOP of the language model's prefill, visual tokens", &|row| format!("{:.2}", row.flops as f64 / 1e9));
        costs("KiB of their keys and values", &|row| (row.kv_bytes >> 10).to_string());
        text.truncate(text.trim_end().len());
        text
    }

    /// The table as JSON for scripts.
    pub(super) fn json(&self, backend: &str, questions: usize) -> Value {
        let row = |row: &Row| {
            json!({
                "method": row.method,
                "tokens": row.tokens,
                "accuracy": row.accuracy,
                "standard_error": row.standard_error,
                "seeds": row.seeds,
                "ttft_ms": ms(row.times.first_token),
                "vision_ms": ms(row.times.vision),
                "prune_ms": ms(row.times.prune),
                "prefill_ms": ms(row.times.prefill),
                "flops": row.flops,
                "kv_bytes": row.kv_bytes,
            })
        };
        json!({ "backend": backend, "questions": questions, "rows": self.rows.iter().map(row).collect::<Vec<_>>() })
    }
}
