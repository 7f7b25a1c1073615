//! What a run's folder has, and whether it is of the run that is asked for.

use std::{collections::BTreeSet, path::Path};

use super::{ANSWERS, CONFIG, METRICS, RunConfig, ahead, in_order};
use crate::{
    Error,
    files::{read_bytes, read_json},
    task::{Answer, Sample},
};

/// How far a run is.
#[derive(Clone, Debug, Default)]
pub struct RunStatus {
    /// The answers to the samples asked for, in their order.
    pub answers: Vec<Answer>,
    /// How many of the first samples have an answer, without a gap.
    pub next: usize,
    /// All answers in the folder; more than [`Self::answers`] where a longer run was there before.
    pub on_disk: usize,
    /// Whether the folder has a score.
    pub scored: bool,
}

/// Looks at a run folder, which need not exist, without writing.
///
/// # Errors
/// When the folder holds another run, or its answers are not those of `samples`.
pub fn status(out: &Path, config: &RunConfig, samples: &[Sample]) -> Result<RunStatus, Error> {
    status_in(&out.join(config.folder_name()), config, samples)
}

/// Looks at a run folder under any name, as [`status`] does.
///
/// # Errors
/// As [`status`].
pub fn status_in(path: &Path, config: &RunConfig, samples: &[Sample]) -> Result<RunStatus, Error> {
    let answers_path = path.join(ANSWERS);
    if !answers_path.is_file() {
        return Ok(RunStatus::default());
    }
    let (answers, _) = whole_answers(&answers_path)?;
    let on_disk = answers.len();
    if on_disk > 0 || ahead::waits(path) {
        check_same(config, &path.join(CONFIG))?;
    }
    let (answers, next) = in_order(answers, samples);
    if answers.len() < on_disk.min(samples.len()) {
        return Err(other_questions(&answers_path));
    }
    Ok(RunStatus { answers, next, on_disk, scored: path.join(METRICS).is_file() })
}

/// Refuses to continue another run under the same name.
pub(super) fn check_same(config: &RunConfig, path: &Path) -> Result<(), Error> {
    let there: RunConfig =
        read_json(path, "answers are there, but the run's settings cannot be read; --force starts again")?;
    if there.gives_answers_of(config) {
        return Ok(());
    }
    let differences = differences(&there, config)
        .map_err(|_| Error::data(path, "not a run's settings; --force starts again"))?
        .join("\n  ");
    let advice = "choose another --out, or --force to start again";
    Err(Error::data(path, format!("this folder holds a run with other settings; {advice}:\n  {differences}")))
}

/// The answers that were written to their ends, and how many bytes they take.
pub(super) fn whole_answers(path: &Path) -> Result<(Vec<Answer>, u64), Error> {
    let bytes = read_bytes(path, "the answers cannot be read")?;
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    Ok((Answer::parse_all(path, &bytes[..whole])?, whole as u64))
}

/// The error for answers to questions that are not asked.
pub(super) fn other_questions(path: &Path) -> Error {
    let advice = "leave out --limit, or give --first as before, or another --out; --force throws the answers away";
    Error::data(path, format!("answers to questions that this run does not ask; {advice}"))
}

/// The settings that make other answers.
fn differences(there: &RunConfig, asked: &RunConfig) -> serde_json::Result<Vec<String>> {
    let (there, asked) = (serde_json::to_value(there.as_one_of(asked))?, serde_json::to_value(asked)?);
    let names = asked.as_object().into_iter().chain(there.as_object()).flat_map(|settings| settings.keys());
    let names: BTreeSet<&String> = names.filter(|name| there[*name] != asked[*name]).collect();
    let sentence = |name: &String| match name.as_str() {
        "checkpoint_sha256" => "checkpoint_sha256: the checkpoint's files are others".to_owned(),
        "clip_sha256" => "clip_sha256: the files of CLIP's text side are others".to_owned(),
        "data_sha256" => "data_sha256: the questions are others".to_owned(),
        name => format!("{name}: there {}, asked {}", there[name], asked[name]),
    };
    Ok(names.into_iter().map(sentence).collect())
}
