//! The folder of a benchmark run: what was asked for, every answer as it comes, and the score.
//!
//! Answers are appended a line at a time, so that whatever ends a run costs at most the questions in flight.

mod ahead;
mod config;
mod cost;
mod media;
mod order;
mod run;
mod status;

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use ahead::Ahead;
use config::CONFIG;
pub use config::{RunConfig, asked, read_config};
use cost::Times;
pub use cost::{Cost, CostSummary, Session, read_cost};
pub use media::{Looked, look_through};
use order::in_order;
pub use run::{Asking, Batching, Given, Run, ask, check_lengths, decoding, evaluate, groups, prompt};
use serde::Serialize;
use serde_json::Value;
pub use status::{RunStatus, status, status_in};
use status::{check_same, other_questions, whole_answers};

use crate::{
    Error,
    files::{read_json, write_file, write_json},
    statistics::Marks,
    task::{Answer, Report, Sample},
};

/// An open run folder, locked against other processes where the file system can.
pub struct RunFolder {
    path: PathBuf,
    config: RunConfig,
    file: File,
    locked: bool,
    answers: Vec<Answer>,
    /// Answers to questions after the next one.
    ahead: Ahead,
    times: Times,
    /// Whether there is a score of an earlier run, which stays, with the settings that it was measured with, until something
    /// takes its place.
    scored: bool,
}

/// `metrics.json`.
#[derive(Serialize)]
struct Metrics<'a> {
    #[serde(flatten)]
    report: &'a Report,
    run: &'a RunConfig,
    /// The cost of the answers, as far as it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<CostSummary>,
}

/// The answers in a run folder.
pub(crate) const ANSWERS: &str = "answers.jsonl";
const METRICS: &str = "metrics.json";
/// The marks of the answers, for comparisons with other runs.
const MARKS: &str = "marks.json";

/// The marks of a scored run.
///
/// # Errors
/// When the folder has none: it is of an older version, or the run is not scored.
pub fn read_marks(folder: &Path) -> Result<Marks, Error> {
    read_json(&folder.join(MARKS), "not there; `secateur eval` scores the run, with the flags that it had")
}

impl RunFolder {
    /// Opens the run's folder under `out` for writing, and takes over the answers that are already there. A
    /// half-written last line is cut off; with `force`, everything is. Call it when the model is loaded and nothing
    /// else can go wrong.
    ///
    /// # Errors
    /// When another process uses the folder, it holds another run (and `force` is not given), or its answers are not
    /// those of `samples`.
    pub fn open(out: &Path, config: &RunConfig, samples: &[Sample], force: bool) -> Result<Self, Error> {
        let path = out.join(config.folder_name());
        std::fs::create_dir_all(&path).map_err(Error::io(&path, "the run folder cannot be made"))?;
        let answers_path = path.join(ANSWERS);
        let (file, locked) = open_locked(&answers_path)?;
        let (answers, whole) = if force { (Vec::new(), 0) } else { whole_answers(&answers_path)? };
        if !force && (!answers.is_empty() || ahead::waits(&path)) {
            check_same(config, &path.join(CONFIG))?;
        }
        let mut ahead = Ahead::open(&path, answers.len(), samples, force)?;
        let (answers, whole) = if answers.iter().zip(samples).all(|(answer, sample)| answer.answers(sample))
            && answers.len() <= samples.len()
        {
            (answers, whole)
        } else {
            // The questions come in another order than before: all answers wait for their turn.
            ahead
                .add_all(&answers, samples)
                .and_then(|known| if known { Ok(()) } else { Err(other_questions(&answers_path)) })?;
            (Vec::new(), 0)
        };
        let times = Times::open(&path, force)?;
        file.set_len(whole).map_err(Error::io(&answers_path, "a half-written answer cannot be removed"))?;
        if force {
            remove(&path.join(METRICS))?;
            remove(&path.join(MARKS))?;
        }
        let scored = path.join(METRICS).is_file();
        let mut folder = Self { path, config: config.clone(), file, locked, answers, ahead, times, scored };
        if !scored {
            folder.write_config()?;
        }
        // A run that was killed may have left answers whose turn has come.
        folder.append_waiting()?;
        Ok(folder)
    }

    fn write_config(&self) -> Result<(), Error> {
        write_json(&self.path.join(CONFIG), &self.config)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether other processes are kept from it: not where the file system has no locks.
    pub fn is_locked(&self) -> bool {
        self.locked
    }

    /// The settings that it was made for.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The answers so far, in the order of the questions.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Whether question number `index` has an answer.
    pub fn has(&self, index: usize) -> bool {
        index < self.answers.len() || self.ahead.has(index)
    }

    /// How many questions have an answer.
    pub fn answered(&self) -> usize {
        self.answers.len() + self.ahead.len()
    }

    /// Adds the answer to question number `index`, in one write. An answer whose turn has not come waits in a file of its own; one whose turn
    /// has come takes the place of an old score.
    ///
    /// # Errors
    /// When the disk is full; the answers before it are kept.
    ///
    /// # Panics
    /// When the question has an answer.
    pub fn append(&mut self, index: usize, answer: Answer) -> Result<(), Error> {
        assert!(!self.has(index), "question {index} has an answer");
        if index > self.answers.len() {
            return self.ahead.add(index, answer);
        }
        self.append_next(answer)?;
        self.append_waiting()
    }

    /// Moves answers whose turn has come to the others. Each waits until it is written.
    fn append_waiting(&mut self) -> Result<(), Error> {
        while let Some(answer) = self.ahead.get(self.answers.len()) {
            self.append_next(answer.clone())?;
            self.ahead.remove(self.answers.len() - 1);
        }
        self.ahead.clear_if_empty()
    }

    fn append_next(&mut self, answer: Answer) -> Result<(), Error> {
        if self.scored {
            remove(&self.path.join(METRICS))?;
            remove(&self.path.join(MARKS))?;
            self.write_config()?;
            self.scored = false;
        }
        let path = self.path.join(ANSWERS);
        let line = answer.line().map_err(|_| Error::data(&path, "the answer has a value that JSON has not"))?;
        self.file.write_all(line.as_bytes()).map_err(Error::io(&path, "the answer cannot be written"))?;
        self.answers.push(answer);
        Ok(())
    }

    /// Adds what the answer to question number `question` cost. It is written before the answer, so that every answer's cost is known.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_cost(&self, question: usize, question_id: &Value, cost: Cost) -> Result<(), Error> {
        self.times.add(question, question_id, cost)
    }

    /// Takes over the costs in another run's folder, whose first question is number `first` here.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn take_over_costs(&self, folder: &Path, first: usize) -> Result<(), Error> {
        self.times.take_over(folder, first)
    }

    /// Adds a part of the run that a process answered.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn add_session(&self, session: Session) -> Result<(), Error> {
        self.times.add_session(session)
    }

    /// Writes what the benchmark's server takes, under the name `name`; without `bytes`, removes what an earlier run left.
    ///
    /// # Errors
    /// When it cannot be written or removed.
    pub fn write_upload(&self, name: &str, bytes: Option<&[u8]>) -> Result<(), Error> {
        let path = self.path.join(name);
        bytes.map_or_else(|| remove(&path), |bytes| write_file(&path, bytes))
    }

    /// Writes the score, and what it was measured on.
    ///
    /// # Errors
    /// When it cannot be written; a half-written file never has its final name.
    pub fn finish(&self, report: &Report) -> Result<(), Error> {
        self.write_config()?;
        write_json(&self.path.join(MARKS), &report.marks)?;
        write_json(&self.path.join(METRICS), &Metrics { report, run: &self.config, cost: self.times.summary() })
    }
}

/// The file, and whether it is locked.
fn open_locked(path: &Path) -> Result<(File, bool), Error> {
    let file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)
        .map_err(Error::io(path, "the answers cannot be opened"))?;
    match file.try_lock() {
        Ok(()) => Ok((file, true)),
        Err(TryLockError::WouldBlock) => {
            Err(Error::data(path, "another process is writing these answers; wait for it, or choose another --out"))
        }
        // Some network file systems have no locks: a run there is as safe as its user's care.
        Err(TryLockError::Error(_)) => Ok((file, false)),
    }
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "cannot be removed")(e)),
        _ => Ok(()),
    }
}
