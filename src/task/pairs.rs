//! MME's rule: two questions about an image, whose answers are yes or no.

use std::collections::BTreeMap;

use super::{Protocol, ids::repeated};
use crate::{
    statistics::{Mark, Marks, Unit},
    words::count,
};

/// One category's answers, by image.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs {
    images: BTreeMap<String, Vec<Judged>>,
    /// The number of answers that a later answer to the same question replaced.
    replaced: usize,
}

/// An answer compared with its label.
#[derive(Clone, Debug)]
struct Judged {
    question: String,
    right: bool,
    mark: Mark,
}

impl Pairs {
    /// Adds an answer; of several to one question the last counts.
    pub(super) fn add(&mut self, image: String, question: String, mark: Mark) {
        let right = mark.credit > 0.0;
        let judged = self.images.entry(image).or_default();
        match judged.iter_mut().find(|other| other.question == question) {
            Some(before) => {
                (before.right, before.mark) = (right, mark);
                self.replaced += 1;
            }
            None => judged.push(Judged { question, right, mark }),
        }
    }

    /// Adds the marks of the images with two answers, each of which is a unit with the worth that `worth` gives to the numbers of right answers
    /// and of images with both right.
    pub(super) fn add_marks(&self, marks: &mut Marks, stratum: usize, worth: impl Fn(f64, f64) -> [f64; 2]) {
        for (image, judged) in self.images.iter().filter(|(_, judged)| judged.len() == 2) {
            let right = judged.iter().filter(|judged| judged.right).count();
            let [part, whole] = worth(right as f64, f64::from(u8::from(right == 2)));
            marks.units.push(Unit { key: format!("{stratum}/{image}"), stratum, part, whole });
            marks.answers.extend(judged.iter().map(|judged| judged.mark.clone()));
        }
    }

    /// A note on answers of several categories that were replaced.
    pub(super) fn notes<'a>(all: impl IntoIterator<Item = &'a Self>) -> Vec<String> {
        repeated(all.into_iter().map(|pairs| pairs.replaced).sum())
    }
}

/// The note on images without two answers.
pub(super) fn left_out(incomplete: usize) -> String {
    let (have, are) = if incomplete == 1 { ("does not have", "is") } else { ("do not have", "are") };
    format!("{} {have} two answered questions and {are} left out", count(incomplete, "image"))
}

/// The counts of a category, from which its score follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scored {
    /// The number of images with two answers.
    pub(super) pairs: usize,
    /// The number of right answers about these images.
    pub(super) right: usize,
    /// The number of images with both answers right.
    both: usize,
    /// The number of images without two answers.
    pub(super) incomplete: usize,
}

impl Scored {
    pub(super) fn new(Pairs { images, .. }: &Pairs) -> Self {
        let pairs: Vec<&Vec<Judged>> = images.values().filter(|judged| judged.len() == 2).collect();
        Self {
            pairs: pairs.len(),
            right: pairs.iter().flat_map(|pair| pair.iter()).filter(|judged| judged.right).count(),
            both: pairs.iter().filter(|pair| pair.iter().all(|judged| judged.right)).count(),
            incomplete: images.len() - pairs.len(),
        }
    }

    /// The score: 100 · share of right answers + 100 · share of images with both right; 0 without an image.
    pub(super) fn score(self) -> f64 {
        let pairs = self.pairs.max(1) as f64;
        100.0 * (self.right as f64 / (2.0 * pairs) + self.both as f64 / pairs)
    }
}

/// Whether an answer says yes or no; `None` if it says neither.
pub(super) fn yes_or_no(text: &str, protocol: Protocol) -> Option<bool> {
    let text = text.to_lowercase();
    let text = match protocol {
        Protocol::Llava => text,
        Protocol::LmmsEval => text.trim().replace('.', ""),
    };
    match (text.as_str(), protocol) {
        ("yes", _) | ("y", Protocol::LmmsEval) => return Some(true),
        ("no", _) | ("n", Protocol::LmmsEval) => return Some(false),
        _ => {}
    }
    let start: String = text.chars().take(4).collect();
    if start.contains("yes") {
        Some(true)
    } else if start.contains("no") {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_rules_read_answers_as_their_scorers_do() {
        for (text, own, lmms) in [
            ("Yes", Some(true), Some(true)),
            ("no", Some(false), Some(false)),
            (" Yes", Some(true), Some(true)),
            ("  Yes", None, Some(true)),
            ("No, it is not.", Some(false), Some(false)),
            ("It's no", None, None),
            ("n", None, Some(false)),
            ("Y.", None, Some(true)),
            ("Ano", Some(false), Some(false)),
            ("Impressionism", None, None),
            ("", None, None),
        ] {
            assert_eq!(yes_or_no(text, Protocol::Llava), own, "{text:?}");
            assert_eq!(yes_or_no(text, Protocol::LmmsEval), lmms, "{text:?}");
        }
    }

    #[test]
    fn one_right_of_two_scores_50_and_both_200() {
        let mark = |right| Mark {
            id: String::new(),
            prompt: String::new(),
            credit: f64::from(u8::from(right)),
            right: String::new(),
        };
        let score = |rows: &[[bool; 2]]| {
            let mut pairs = Pairs::default();
            for (i, row) in rows.iter().enumerate() {
                for (question, &right) in row.iter().enumerate() {
                    // The last of two answers to the same question counts.
                    pairs.add(i.to_string(), question.to_string(), mark(!right));
                    pairs.add(i.to_string(), question.to_string(), mark(right));
                }
            }
            assert!(Pairs::notes([&pairs])[0].starts_with(&format!("{} answer(s)", 2 * rows.len())));
            Scored::new(&pairs).score()
        };
        assert_eq!(score(&[[true, false]]), 50.0);
        assert_eq!(score(&[[true, true]]), 200.0);
        assert_eq!(score(&[[true, true], [true, false], [false, false], [false, false]]), 62.5);
    }
}
