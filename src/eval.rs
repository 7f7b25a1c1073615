//! The folder of a benchmark run: what was asked for, every answer as it comes, and the score.
//!
//! Answers are appended a line at a time, so that whatever ends a run costs at most the question in flight.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    task::{Answer, Protocol, Report, Sample},
};

/// All that is needed to run it again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunConfig {
    /// The benchmark.
    pub benchmark: String,
    /// Whose scoring rules.
    pub protocol: Protocol,
    /// The checkpoint, as given.
    pub model: String,
    /// The method.
    pub method: String,
    /// Its budget; none without pruning.
    pub tokens: Option<usize>,
    /// Where it ran.
    pub backend: String,
    /// The weights' type, if it was asked for.
    pub dtype: Option<String>,
    /// The seed.
    pub seed: u64,
    /// The benchmark's data.
    pub data: PathBuf,
    /// Only the first so many questions.
    pub limit: Option<usize>,
    /// The longest answer.
    pub max_new_tokens: usize,
    /// Secateur's version.
    pub version: String,
}

impl RunConfig {
    /// `<benchmark>-<model>-<method>-<tokens>`.
    pub fn folder_name(&self) -> String {
        let model = Path::new(&self.model).file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy());
        let tokens = self.tokens.map_or_else(|| "all".to_owned(), |tokens| tokens.to_string());
        format!("{}-{model}-{}-{tokens}", self.benchmark, self.method)
    }
}

/// An open run folder, locked against other processes.
pub struct RunFolder {
    path: PathBuf,
    file: File,
    answers: Vec<Answer>,
}

const CONFIG: &str = "config.json";
const ANSWERS: &str = "answers.jsonl";
const METRICS: &str = "metrics.json";

impl RunFolder {
    /// Opens the run's folder under `out`, and takes over the answers that are already there. A half-written last
    /// line is cut off.
    ///
    /// # Errors
    /// When another process uses the folder, it holds another run (and `force` is not given), or its answers are not
    /// those of `samples`.
    pub fn open(out: &Path, config: &RunConfig, samples: &[Sample], force: bool) -> Result<Self, Error> {
        let path = out.join(config.folder_name());
        std::fs::create_dir_all(&path).map_err(Error::io(&path, "the run folder cannot be made"))?;
        let answers_path = path.join(ANSWERS);
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&answers_path)
            .map_err(Error::io(&answers_path, "the answers cannot be opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::data(
                    &path,
                    "another process is running in this folder; wait for it, or choose another --out",
                ));
            }
            Err(TryLockError::Error(e)) => return Err(Error::io(&answers_path, "the answers cannot be locked")(e)),
        }
        if force {
            file.set_len(0).map_err(Error::io(&answers_path, "the answers cannot be cleared"))?;
            remove(&path.join(METRICS))?;
            remove(&path.join(CONFIG))?;
        }
        let config_path = path.join(CONFIG);
        if config_path.is_file() {
            check_same(config, &config_path)?;
        }
        let answers = take_over(&mut file, &answers_path, samples)?;
        write_whole(&config_path, &json_lines(config))?;
        Ok(Self { path, file, answers })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The answers so far, in the order of the questions.
    pub fn answers(&self) -> &[Answer] {
        &self.answers
    }

    /// Adds an answer, in one write.
    ///
    /// # Errors
    /// When the disk is full; the answers before it are kept.
    pub fn append(&mut self, answer: Answer) -> Result<(), Error> {
        let path = self.path.join(ANSWERS);
        let line = answer.line();
        self.file.write_all(line.as_bytes()).map_err(Error::io(&path, "the answer cannot be written"))?;
        self.answers.push(answer);
        Ok(())
    }

    /// Writes the score.
    ///
    /// # Errors
    /// When it cannot be written; a half-written file never has its final name.
    pub fn finish(&self, report: &Report) -> Result<(), Error> {
        write_whole(&self.path.join(METRICS), &json_lines(report))
    }
}

/// Refuses to continue another run under the same name. A run may be continued with another `--limit`.
fn check_same(config: &RunConfig, path: &Path) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "the run's settings cannot be read"))?;
    let there: RunConfig = serde_json::from_str(&text)
        .map_err(|e| Error::data(path, format!("not a run's settings ({e}); --force starts again")))?;
    if (RunConfig { limit: config.limit, ..there.clone() }) == *config {
        return Ok(());
    }
    Err(Error::data(
        path,
        format!(
            "this folder holds a run with other settings:\n  there: {}\n  asked: {}\n  choose another --out, or --force \
             to start again",
            compact(&there),
            compact(config)
        ),
    ))
}

/// Reads the answers of an interrupted run and cuts off what was not written to its end.
fn take_over(file: &mut File, path: &Path, samples: &[Sample]) -> Result<Vec<Answer>, Error> {
    let bytes = std::fs::read(path).map_err(Error::io(path, "the answers cannot be read"))?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    if whole < bytes.len() {
        file.set_len(whole as u64).map_err(Error::io(path, "a half-written answer cannot be removed"))?;
    }
    let mut answers = Answer::parse_all(path, &bytes[..whole])?;
    answers.truncate(samples.len());
    for (i, (answer, sample)) in answers.iter().zip(samples).enumerate() {
        if !answer.answers(sample) {
            return Err(Error::data(
                path,
                format!("line {} does not answer question {}; --force starts again", i + 1, i + 1),
            ));
        }
    }
    Ok(answers)
}

fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path, "cannot be removed")(e)),
        _ => Ok(()),
    }
}

/// Our own structures have string keys and finite numbers, which serialise.
fn json_lines(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).map(|text| text + "\n").unwrap_or_default()
}

fn compact(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Writes beside the file, then renames: the name never holds half of it.
fn write_whole(path: &Path, text: &str) -> Result<(), Error> {
    let draft = path.with_extension("json.part");
    let written = std::fs::write(&draft, text).and_then(|()| std::fs::rename(&draft, path));
    written.map_err(|e| {
        // The draft is of no use to anyone.
        let _ = std::fs::remove_file(&draft);
        Error::io(path, "cannot be written")(e)
    })
}
