//! What the questions of a run cost: a line for each in `times.jsonl`, and their summary in `metrics.json`.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::remove;
use crate::{Error, files::read_bytes, words::count};

/// The file in a run folder.
const TIMES: &str = "times.jsonl";

/// The cost of a question. Times are those of a clock on the wall, from when its image is opened.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Cost {
    /// Milliseconds to the first token. What an earlier question computed is not counted again.
    pub ttft_ms: f64,
    /// Milliseconds to the last token.
    pub total_ms: f64,
    /// The answer's tokens.
    pub tokens: usize,
    /// Visual tokens that were kept.
    pub visual_tokens: usize,
    /// Visual tokens before pruning.
    pub visual_tokens_before: usize,
}

/// A part of a run that one process answered, and where.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Session {
    /// Seconds from the first question to the last answer.
    pub wall_s: f64,
    /// The number of questions that were answered in it.
    pub answered: usize,
    /// The backend.
    pub backend: String,
    /// The device, as its driver names it.
    pub device: Option<String>,
    /// The newest instructions that kernels used, on processors.
    pub instructions: Option<String>,
    /// The threads of a process on the processor.
    pub threads: usize,
    /// The number of worker processes; none where the process answered by itself.
    pub workers: Option<usize>,
    /// The peak memory of the process in bytes; unknown for workers, and on other systems than Linux.
    pub peak_bytes: Option<u64>,
    /// When it ended, in UTC.
    pub date: String,
    /// Secateur's version.
    pub version: String,
}

/// A line of the file.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Line {
    Question {
        /// The number of the question, from 0: several questions may have one id.
        question: usize,
        question_id: Value,
        #[serde(flatten)]
        cost: Cost,
    },
    Session {
        session: Session,
    },
}

/// The costs of a run's questions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CostSummary {
    /// The number of questions whose cost is known.
    pub questions: usize,
    /// Milliseconds to the first token, the median of all questions.
    pub ttft_ms_median: f64,
    /// Milliseconds to the first token that 95 % of the questions need at most.
    pub ttft_ms_p95: f64,
    /// Tokens a second after the first; none where answers are single tokens.
    pub tokens_per_second: Option<f64>,
    /// Visual tokens of a question that were kept, on average.
    pub visual_tokens: f64,
    /// Visual tokens of a question before pruning, on average.
    pub visual_tokens_before: f64,
    /// The questions' seconds, added up.
    pub answering_s: f64,
    /// The last part of the run.
    #[serde(flatten)]
    pub session: Option<Session>,
}

impl CostSummary {
    /// Where the questions were timed: times of other devices, or with other numbers of threads, cannot be compared.
    pub fn place(&self) -> Option<String> {
        let Session { backend, device, instructions, threads, workers, .. } = self.session.as_ref()?;
        let mut place = vec![backend.clone()];
        place.extend([device.clone(), instructions.clone()].into_iter().flatten());
        place.push(count(*threads, "thread"));
        place.extend(workers.map(|workers| count(workers, "worker")));
        Some(place.join(", "))
    }
}

/// The file of costs in a run folder.
pub(super) struct Times {
    path: PathBuf,
}

impl Times {
    /// The file in `folder`; with `force`, an old one is removed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn open(folder: &Path, force: bool) -> Result<Self, Error> {
        let path = folder.join(TIMES);
        if force {
            remove(&path)?;
        }
        Ok(Self { path })
    }

    /// Adds the cost of question number `question`, in one write.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add(&self, question: usize, question_id: &Value, cost: Cost) -> Result<(), Error> {
        self.write(&Line::Question { question, question_id: question_id.clone(), cost })
    }

    /// Takes over the lines of another run's folder, whose first question is number `first` here.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(super) fn take_over(&self, folder: &Path, first: usize) -> Result<(), Error> {
        for line in lines(&folder.join(TIMES)) {
            self.write(&match line {
                Line::Question { question, question_id, cost } => {
                    Line::Question { question: first + question, question_id, cost }
                }
                session => session,
            })?;
        }
        Ok(())
    }

    /// Adds a part of the run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn add_session(&self, session: Session) -> Result<(), Error> {
        self.write(&Line::Session { session })
    }

    fn write(&self, line: &Line) -> Result<(), Error> {
        let line = serde_json::to_string(line);
        let text = line.map_err(|_| Error::data(&self.path, "a time has a value that JSON has not"))? + "\n";
        let opened = OpenOptions::new().create(true).append(true).open(&self.path);
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(Error::io(&self.path, "the time cannot be written"))
    }

    /// The summary of the questions whose cost is known, each once; `None` where there are none. A line that was cut off is passed over.
    pub(super) fn summary(&self) -> Option<CostSummary> {
        // A question that was asked again, after a kill, counts as it was asked last. Its number may have changed, and its id may be that of others.
        let (mut costs, mut last) = (BTreeMap::new(), None);
        for line in lines(&self.path) {
            match line {
                Line::Question { question, question_id, cost } => {
                    let _ = costs.insert((question, question_id.to_string()), cost);
                }
                Line::Session { session } => last = Some(session),
            }
        }
        Some(CostSummary { session: last, ..summary(&costs.into_values().collect::<Vec<_>>())? })
    }
}

/// The costs in a run's folder; `None` where none are known.
pub fn read_cost(folder: &Path) -> Option<CostSummary> {
    Times { path: folder.join(TIMES) }.summary()
}

/// The lines of a file that can be read; none where there is no file.
fn lines(path: &Path) -> Vec<Line> {
    let bytes = read_bytes(path, "the times cannot be read").unwrap_or_default();
    bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
}

fn summary(costs: &[Cost]) -> Option<CostSummary> {
    let mut first: Vec<f64> = costs.iter().map(|cost| cost.ttft_ms).collect();
    first.sort_by(f64::total_cmp);
    let last = first.len().checked_sub(1)?;
    // The nearest rank.
    let at = |share: f64| first[(share * first.len() as f64).ceil().max(1.0) as usize - 1];
    let sum = |of: fn(&Cost) -> f64| costs.iter().map(of).sum::<f64>();
    let later = costs.iter().map(|cost| cost.tokens.saturating_sub(1)).sum::<usize>() as f64;
    let decoding = sum(|cost| cost.total_ms - cost.ttft_ms) / 1e3;
    let questions = last + 1;
    Some(CostSummary {
        questions,
        ttft_ms_median: at(0.5),
        ttft_ms_p95: at(0.95),
        tokens_per_second: (later > 0.0 && decoding > 0.0).then(|| later / decoding),
        visual_tokens: sum(|cost| cost.visual_tokens as f64) / questions as f64,
        visual_tokens_before: sum(|cost| cost.visual_tokens_before as f64) / questions as f64,
        answering_s: sum(|cost| cost.total_ms) / 1e3,
        session: None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cost(ttft_ms: f64, tokens: usize) -> Cost {
        Cost { ttft_ms, total_ms: ttft_ms + 10.0, tokens, visual_tokens: 64, visual_tokens_before: 576 }
    }

    #[test]
    fn a_summary_counts_each_question_as_it_was_asked_last() {
        let folder = tempfile::tempdir().unwrap();
        let times = Times::open(folder.path(), false).unwrap();
        assert_eq!(times.summary(), None);
        for i in 1..=20 {
            times.add(i, &json!("one id"), cost(i as f64, 3)).unwrap();
        }
        times.add(20, &json!("one id"), cost(100.0, 3)).unwrap();
        let mut file = OpenOptions::new().append(true).open(folder.path().join(TIMES)).unwrap();
        file.write_all(b"{\"question\": 21, \"ttf").unwrap();
        let found = times.summary().unwrap();
        assert_eq!((found.questions, found.ttft_ms_median, found.ttft_ms_p95), (20, 10.0, 19.0));
        assert_eq!((found.visual_tokens, found.visual_tokens_before), (64.0, 576.0));
        // Two tokens after the first in 10 ms.
        assert!((found.tokens_per_second.unwrap() - 200.0).abs() < 1e-9);
        let other = tempfile::tempdir().unwrap();
        let joined = Times::open(other.path(), false).unwrap();
        joined.take_over(folder.path(), 0).unwrap();
        joined.take_over(folder.path(), 20).unwrap();
        assert_eq!(joined.summary().unwrap().questions, 40);
        assert_eq!(summary(&[cost(1.0, 1)]).unwrap().tokens_per_second, None);
        Times::open(folder.path(), true).unwrap();
        assert_eq!(times.summary(), None);
    }
}
