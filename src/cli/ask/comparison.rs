//! Several methods' answers to one question, with a row for each.

use serde_json::{Value, json};

use super::AskResult;
use crate::cli::{plan::MethodPlan, print};

/// The rows so far; each is printed as soon as it is there.
pub(super) struct Comparison {
    results: Vec<Value>,
    width: usize,
}

impl Comparison {
    /// Prints the head of the table.
    pub(super) fn new(methods: &[MethodPlan]) -> anyhow::Result<Self> {
        let width = methods.iter().map(|method| method.method.len()).max().unwrap_or_default().max("method".len());
        print(&format!("{:<width$}  tokens  first token     total  answer", "method"))?;
        Ok(Self { results: Vec::new(), width })
    }

    /// Prints a row; an answer of several lines goes on below itself.
    pub(super) fn add(&mut self, result: AskResult) -> anyhow::Result<()> {
        let width = self.width;
        let start = format!(
            "{:<width$}  {:>6}  {:>8.0} ms  {:>5.1} s  ",
            result.method,
            result.visual_tokens,
            result.ttft_ms,
            result.total_ms / 1e3
        );
        let below = format!("\n{}", " ".repeat(start.chars().count()));
        print(&format!("{start}{}", result.text.replace('\n', &below)))?;
        self.results.push(serde_json::to_value(result)?);
        Ok(())
    }

    /// Refuses a comparison in which no method has an answer.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.results.iter().all(|result| result.get("error").is_some()) {
            anyhow::bail!("no method has an answer");
        }
        Ok(())
    }

    /// Prints why a method has no answer.
    pub(super) fn add_failure(&mut self, method: &'static str, error: &anyhow::Error) -> anyhow::Result<()> {
        print(&format!("{method:<0$}  {1:>6}  {1:>11}  {1:>7}  {error:#}", self.width, "–"))?;
        self.results.push(json!({ "method": method, "error": format!("{error:#}") }));
        Ok(())
    }

    /// The last line of `ask --json`.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        super::print_json(&json!({ "answers": self.results }))
    }
}
