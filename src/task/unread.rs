//! Notes on answers that a benchmark's rule cannot read, and on questions that an upload does not answer. They are
//! counted and reported, whatever they do to the score.

use std::path::Path;

use serde_json::Value;

use super::{Answer, Protocol, Task, ids::ById};
use crate::{
    Error,
    text::is_space,
    words::{count, excerpt},
};

/// Notes on answers that the rule cannot read: how many there are, what they count as, and one of them.
pub fn unread(task: &dyn Task, answers: &[Answer], protocol: Protocol) -> Vec<String> {
    let (mut empty, mut lacking) = (0, Vec::new());
    for answer in answers {
        if answer.text.chars().all(is_space) {
            empty += 1;
        } else if let Some(lack) = task.lacks(answer, protocol) {
            lacking.push((answer, lack));
        }
    }
    let counts_as = task.unread_as(protocol);
    let all = count(answers.len(), "answer");
    let mut notes = Vec::new();
    if empty > 0 {
        let (are, counts) = if empty == 1 { ("is", "counts") } else { ("are", "count") };
        notes.push(format!("{empty} of {all} {are} empty, and {counts} as {counts_as}"));
    }
    if let Some((answer, lack)) = lacking.first() {
        let counts = if lacking.len() == 1 { "counts" } else { "count" };
        let (id, text) = (excerpt(&super::ids::key(&answer.question_id)), excerpt(&answer.text));
        notes.push(format!(
            "{} of {all} {lack}, and {counts} as {counts_as}: `{text}` to question {id}, for one",
            lacking.len()
        ));
    }
    notes
}

/// The questions that a benchmark's server expects answers to.
#[derive(Clone, Debug, PartialEq)]
pub enum MustAnswer {
    /// The questions with these ids.
    Ids(Vec<Value>),
    /// The questions of this file, which is not there.
    Unlisted(&'static str),
    /// [`Task::upload`] checks by itself, and refuses an upload that leaves questions out.
    Checked,
}

/// A note on an upload that leaves questions without an answer; `None` if it leaves none.
///
/// # Errors
/// When the questions cannot be read.
pub fn holes(task: &dyn Task, data: &Path, answers: &[Answer]) -> Result<Option<String>, Error> {
    let ids = match task.uploaded(data)? {
        MustAnswer::Ids(ids) => ids,
        MustAnswer::Checked => return Ok(None),
        MustAnswer::Unlisted(file) => {
            return Ok(Some(format!(
                "{file} is not in {}, so nobody looked whether every question is answered",
                data.display()
            )));
        }
    };
    let by_id = ById::new(answers);
    let missing = ids.iter().filter(|id| by_id.get(id).is_none()).count();
    let have = if missing == 1 { "has" } else { "have" };
    Ok((missing > 0).then(|| {
        format!(
            "{missing} of {} {have} no answer, which the file for the server leaves out or empty",
            count(ids.len(), "question")
        )
    }))
}
