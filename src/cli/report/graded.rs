//! The marks of runs, by question.

use std::collections::HashMap;

use super::runs::{Group, Stored};
use crate::{statistics::Mark, task::Answer};

/// A run's marks by the id and the text of the question.
type ByQuestion<'a> = HashMap<(&'a str, &'a str), &'a Mark>;

/// The marks of a group's runs, by question.
pub(super) struct Graded<'a>(Vec<(&'a Stored, ByQuestion<'a>)>);

impl<'a> Graded<'a> {
    pub(super) fn new(group: &'a Group) -> Self {
        let of = |run: &'a Stored| {
            let marks = run.marks.iter().flat_map(|marks| &marks.answers);
            (run, marks.map(|mark| ((mark.id.as_str(), mark.prompt.as_str()), mark)).collect())
        };
        Self(group.runs.iter().map(of).collect())
    }

    /// The mark of a run's answer; `None` where it has none.
    pub(super) fn mark(&self, run: &Stored, answer: &Answer) -> Option<&'a Mark> {
        let (_, marks) = self.0.iter().find(|(other, _)| std::ptr::eq(*other, run))?;
        let id = answer.mark(true, "").id;
        marks.get(&(id.as_str(), answer.prompt.as_str())).copied()
    }

    /// The right answer to the question of an answer; empty where no run's marks have it.
    pub(super) fn right(&self, answer: &Answer) -> String {
        let found = self.0.iter().find_map(|(run, _)| self.mark(run, answer));
        found.map(|mark| mark.right.clone()).unwrap_or_default()
    }
}
