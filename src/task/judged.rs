//! Benchmarks whose answers a language model grades.

use std::path::Path;

use serde_json::Value;

use super::{Answer, Protocol, Report};
use crate::{Error, judge::Request};

/// A benchmark's requests to its judge, and the reading of the replies.
pub trait Judged: Sync {
    /// The model that the benchmark's authors, or lmms-eval, use as judge.
    fn judge(&self, protocol: Protocol) -> &'static str;

    /// A request for each answered question, in the order of the answers. The instruction is in our own words, with the
    /// meaning of the official one; `instruction` replaces it.
    ///
    /// # Errors
    /// When the labels are missing or not those of the questions.
    fn requests(&self, data: &Path, answers: &[Answer], instruction: Option<&Value>) -> Result<Vec<Request>, Error>;

    /// The scores in a reply; `None` if it has none, and the judge must be asked again.
    fn verdict(&self, reply: &str) -> Option<Vec<f64>>;

    /// The result, from a verdict for each of [`Self::requests`].
    ///
    /// # Errors
    /// As [`Self::requests`].
    fn report(
        &self,
        data: &Path,
        answers: &[Answer],
        verdicts: &[Option<Vec<f64>>],
        protocol: Protocol,
    ) -> Result<Report, Error>;
}
