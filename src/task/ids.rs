//! Answers by the ids of their questions.

use std::collections::HashMap;

use serde_json::Value;

use super::Answer;

/// An id as text: a number and its digits in a string are the same question.
pub(super) fn key(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// The answers by id; of several to one question the last counts, as in LLaVA's converters.
pub(super) struct ById<'a> {
    answers: HashMap<String, &'a Answer>,
    given: usize,
}

impl<'a> ById<'a> {
    pub(super) fn new(answers: &'a [Answer]) -> Self {
        let by_id = answers.iter().map(|answer| (key(&answer.question_id), answer)).collect();
        Self { answers: by_id, given: answers.len() }
    }

    pub(super) fn get(&self, id: &Value) -> Option<&'a Answer> {
        self.answers.get(&key(id)).copied()
    }

    /// What a reader must know: questions answered twice, and `questions` that are not answered.
    pub(super) fn notes<'q>(&self, questions: impl IntoIterator<Item = &'q Value>) -> Vec<String> {
        let mut notes = Vec::new();
        let twice = self.given - self.answers.len();
        if twice > 0 {
            notes.push(format!("{twice} question(s) are answered more than once; the last answer counts"));
        }
        let (mut all, mut missing) = (0, 0);
        for id in questions {
            all += 1;
            missing += usize::from(self.get(id).is_none());
        }
        if missing > 0 {
            notes.push(format!("{missing} of {all} questions have no answer"));
        }
        notes
    }
}
