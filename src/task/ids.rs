//! Answers by the ids of their questions.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Answer;
use crate::statistics::Mark;

/// An id as text: a number and its digits in a string are the same question.
pub(crate) fn key(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// A note on `count` answers that later answers replace; none if there are no such answers.
pub(super) fn repeated(count: usize) -> Vec<String> {
    let note = format!("{count} answer(s) are to questions that are answered again later; the last answer counts");
    if count > 0 { vec![note] } else { Vec::new() }
}

/// The answers by the ids of their questions; of several answers to a question the last counts, as in LLaVA's converters.
pub(super) struct ById<'a> {
    answers: HashMap<String, &'a Answer>,
    order: Vec<String>,
    given: usize,
}

impl<'a> ById<'a> {
    pub(super) fn new(answers: &'a [Answer]) -> Self {
        let mut by_id = HashMap::new();
        let mut order = Vec::new();
        for answer in answers {
            let key = key(&answer.question_id);
            if by_id.insert(key.clone(), answer).is_none() {
                order.push(key);
            }
        }
        Self { answers: by_id, order, given: answers.len() }
    }

    pub(super) fn get(&self, id: &Value) -> Option<&'a Answer> {
        self.answers.get(&key(id)).copied()
    }

    /// The mark of the answer to a question, which is right or wrong; wrong without an answer.
    pub(super) fn mark(&self, id: &Value, is_right: bool, right: &str) -> Mark {
        match self.get(id) {
            Some(answer) => answer.mark(is_right, right),
            None => Mark { id: key(id), prompt: String::new(), credit: 0.0, right: right.to_owned() },
        }
    }

    /// Each question once, in the order of their first answers, with its last answer.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&str, &'a Answer)> {
        self.order.iter().map(|key| (key.as_str(), self.answers[key]))
    }

    /// The number of answers that are to none of `questions`.
    pub(super) fn strays<'q>(&self, questions: impl IntoIterator<Item = &'q Value>) -> usize {
        let known: HashSet<String> = questions.into_iter().map(key).collect();
        self.order.iter().filter(|key| !known.contains(*key)).count()
    }

    /// A note on answers that a later answer to the same question replaces.
    pub(super) fn repeated(&self) -> Vec<String> {
        repeated(self.given - self.order.len())
    }

    /// Notes on the answers to `questions`: answers that are replaced, answers to none of the questions, and questions
    /// without an answer; `then` says what happens to these.
    pub(super) fn notes<'q>(&self, questions: impl IntoIterator<Item = &'q Value>, then: &str) -> Vec<String> {
        let questions: Vec<&Value> = questions.into_iter().collect();
        let mut notes = self.repeated();
        let missing = questions.iter().filter(|id| self.get(id).is_none()).count();
        if missing > 0 {
            notes.push(format!("{missing} of {} questions have no answer and {then}", questions.len()));
        }
        let strays = self.strays(questions);
        if strays > 0 {
            notes.push(format!("{strays} answer(s) are to none of these questions and are left out"));
        }
        notes
    }
}
