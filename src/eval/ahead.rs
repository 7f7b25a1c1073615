//! Answers that were given before their turn: questions about an image are asked together, and their answers wait here until those to all
//! questions before them are there.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{order::Places, remove};
use crate::{
    Error,
    files::read_bytes,
    task::{Answer, Sample},
};

/// The file in a run's folder.
const AHEAD: &str = "answers-ahead.jsonl";

/// A line of the file.
#[derive(Deserialize, Serialize)]
struct Line {
    /// The number of the question, from 0.
    question: usize,
    answer: Answer,
}

/// Answers by the numbers of their questions.
pub(super) struct Ahead {
    path: PathBuf,
    /// With those to questions that are not asked this time, because `--limit` is smaller.
    answers: BTreeMap<usize, Answer>,
    /// The number of questions that are asked.
    questions: usize,
    /// Opened for the first answer.
    file: Option<File>,
}

/// Whether answers wait in a run's folder.
pub(super) fn waits(folder: &Path) -> bool {
    folder.join(AHEAD).metadata().is_ok_and(|file| file.len() > 0)
}

impl Ahead {
    /// The answers in the folder to questions from number `next` on. A half-written last line is cut off, and with `force` everything is;
    /// a line that does not answer its question is passed over.
    ///
    /// # Errors
    /// When the file cannot be read or changed.
    pub(super) fn open(folder: &Path, next: usize, samples: &[Sample], force: bool) -> Result<Self, Error> {
        let path = folder.join(AHEAD);
        if force {
            remove(&path)?;
        }
        let mut ahead = Self { path, answers: BTreeMap::new(), questions: samples.len(), file: None };
        if !ahead.path.is_file() {
            return Ok(ahead);
        }
        let bytes = read_bytes(&ahead.path, "the answers cannot be read")?;
        let mut moved = Vec::new();
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        for line in bytes[..whole].split(|&byte| byte == b'\n') {
            let Ok(Line { question, answer }) = serde_json::from_slice(line) else { continue };
            match samples.get(question) {
                Some(sample) if !answer.answers(sample) => moved.push(answer),
                _ if question >= next => drop(ahead.answers.insert(question, answer)),
                _ => {}
            }
        }
        // The questions come in another order than when these were answered.
        let mut places = Places::new(samples);
        for answer in &moved {
            if let Some(question) = places.take(answer).filter(|question| *question >= next) {
                ahead.answers.insert(question, answer.clone());
            }
        }
        let file = ahead.file()?.set_len(whole as u64);
        file.map_err(Error::io(&ahead.path, "a half-written answer cannot be removed"))?;
        Ok(ahead)
    }

    /// Adds all answers of a run whose questions came in another order; false, and adds none, where one is to a question that is not asked.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn add_all(&mut self, answers: &[Answer], samples: &[Sample]) -> Result<bool, Error> {
        let mut places = Places::new(samples);
        let Some(questions) = answers.iter().map(|answer| places.take(answer)).collect::<Option<Vec<_>>>() else {
            return Ok(false);
        };
        for (question, answer) in questions.into_iter().zip(answers) {
            self.add(question, answer.clone())?;
        }
        Ok(true)
    }

    pub(super) fn has(&self, question: usize) -> bool {
        self.answers.contains_key(&question)
    }

    /// The number of answers to questions that are asked.
    pub(super) fn len(&self) -> usize {
        self.answers.range(..self.questions).count()
    }

    /// Adds an answer, in one write.
    ///
    /// # Errors
    /// When the disk is full; the answers before it are kept.
    pub(super) fn add(&mut self, question: usize, answer: Answer) -> Result<(), Error> {
        let line = Line { question, answer };
        let json = serde_json::to_string(&line);
        let text = json.map_err(|_| Error::data(&self.path, "the answer has a value that JSON has not"))? + "\n";
        let written = self.file()?.write_all(text.as_bytes());
        written.map_err(Error::io(&self.path, "the answer cannot be written"))?;
        self.answers.insert(question, line.answer);
        Ok(())
    }

    /// The answer to a question, if it waits.
    pub(super) fn get(&self, question: usize) -> Option<&Answer> {
        self.answers.get(&question)
    }

    /// Forgets an answer that was written in its turn.
    pub(super) fn remove(&mut self, question: usize) {
        self.answers.remove(&question);
    }

    /// Removes the file when no answer waits in it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(super) fn clear_if_empty(&mut self) -> Result<(), Error> {
        if self.answers.is_empty() && self.file.take().is_some() {
            remove(&self.path)?;
        }
        Ok(())
    }

    fn file(&mut self) -> Result<&mut File, Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let opened = OpenOptions::new().create(true).append(true).open(&self.path);
                opened.map_err(Error::io(&self.path, "the answers cannot be opened"))?
            }
        };
        Ok(self.file.insert(file))
    }
}
