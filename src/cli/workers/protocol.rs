//! The lines between a run and its workers.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Questions for a worker.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(in crate::cli) struct Order {
    /// The number of the run in a sweep; 0 elsewhere.
    pub(in crate::cli) run: usize,
    /// The numbers of the questions in the run's file.
    pub(in crate::cli) questions: Vec<usize>,
}

/// A line from a worker.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// The model is loaded.
    Ready,
    /// The result for a question.
    Result { question: usize, value: Value },
    /// The order is done.
    Done,
    /// The run must end, and why.
    Failed { message: String },
}

/// Writes a line to stdout, at once.
pub(super) fn write(reply: &Reply) -> io::Result<()> {
    let line = serde_json::to_string(reply)? + "\n";
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.flush()
}
