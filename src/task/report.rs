//! A benchmark's result.

use std::fmt::Write;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Protocol, Unit, task};
use crate::{statistics::Marks, words::count};

/// A benchmark's result, with the metrics in the order in which they are shown.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The benchmark.
    pub benchmark: &'static str,
    /// The rules that scored the answers.
    pub protocol: Protocol,
    /// The number of answers that were scored.
    pub n: usize,
    /// The names and values of the metrics.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<(String, f64)>,
    /// The marks of the answers, from which the headline metric and its standard error follow; none where nothing could be marked.
    #[serde(
        rename = "standard_errors",
        serialize_with = "Marks::errors",
        skip_serializing_if = "Marks::is_without_error"
    )]
    pub marks: Marks,
    /// Notes that a reader must know to trust the numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Report {
    /// The table for people, under a line that says what was scored: `run` names model, method and budget.
    pub fn table(&self, run: Option<&str>) -> String {
        let width = self.metrics.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let run = run.map_or_else(String::new, |run| format!("{run} · "));
        let (answers, rules) = (count(self.n, "answer"), self.protocol.name());
        let mut table = format!("{} · {run}{answers} · {rules} rules\n", self.benchmark);
        let card = task(self.benchmark).map(|task| task.card()).unwrap_or_default();
        let error = self.marks.standard_error();
        for (name, value) in &self.metrics {
            let unit = card.unit_of(name);
            let sign = if unit == Unit::Share { " %" } else { "" };
            let error = error.filter(|_| *name == self.marks.metric);
            let error = error.map_or_else(String::new, |error| format!(" ± {:.2}", unit.in_papers(error)));
            // Writing to a string cannot fail.
            let _ = writeln!(table, "{name:<width$}  {:>8.2}{error}{sign}", unit.in_papers(*value));
        }
        if error.is_some() {
            table.push_str("±: standard error\n");
        }
        for note in &self.notes {
            let _ = writeln!(table, "note: {note}");
        }
        table.truncate(table.trim_end().len());
        table
    }
}

fn as_map<S: Serializer>(metrics: &[(String, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(metrics.len()))?;
    for (name, value) in metrics {
        map.serialize_entry(name, value)?;
    }
    map.end()
}
