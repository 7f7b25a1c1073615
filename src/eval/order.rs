//! The order of a run's questions, which `--limit` changes: a run may go on in another order than it began in.

use std::collections::{HashMap, VecDeque};

use crate::task::{Answer, Sample};

/// The questions of a run by what their answers hold: the id and the text.
pub(super) struct Places<'a>(HashMap<(String, &'a str), VecDeque<usize>>);

impl<'a> Places<'a> {
    pub(super) fn new(samples: &'a [Sample]) -> Self {
        let mut places: HashMap<_, VecDeque<usize>> = HashMap::new();
        for (i, sample) in samples.iter().enumerate() {
            places.entry((sample.question_id.to_string(), sample.text.as_str())).or_default().push_back(i);
        }
        Self(places)
    }

    /// The number of the question that an answer is to; `None` where it is to none that is left. A question is given once.
    pub(super) fn take(&mut self, answer: &'a Answer) -> Option<usize> {
        self.0.get_mut(&(answer.question_id.to_string(), answer.prompt.as_str()))?.pop_front()
    }
}

/// The answers in the order of the questions, and how many of the first questions they answer without a gap; those to other questions are left
/// out.
pub(super) fn in_order(answers: Vec<Answer>, samples: &[Sample]) -> (Vec<Answer>, usize) {
    let mut places = Places::new(samples);
    let mut numbered: Vec<(usize, &Answer)> =
        answers.iter().filter_map(|answer| Some((places.take(answer)?, answer))).collect();
    numbered.sort_by_key(|(place, _)| *place);
    let next = numbered.iter().enumerate().take_while(|(i, (place, _))| i == place).count();
    (numbered.into_iter().map(|(_, answer)| answer.clone()).collect(), next)
}
