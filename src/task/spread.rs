//! A part of a benchmark that has all of its categories.

use std::collections::BTreeMap;

use super::Sample;

/// The first `limit` questions, with the categories in turn, so that no category is left out: a question of each, then the next of each. Questions
/// about an image that are scored `together` stay together. A larger limit adds questions at the end.
pub fn spread(samples: Vec<Sample>, limit: usize, together: bool) -> Vec<Sample> {
    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    // The turn in which a question is asked: how many groups of its category come before its own.
    let mut order: Vec<(usize, usize)> = Vec::with_capacity(samples.len());
    for (i, sample) in samples.iter().enumerate() {
        let goes_on = together && i > 0 && {
            let before = &samples[i - 1];
            before.category == sample.category && before.media == sample.media
        };
        let turn = turns.entry(&sample.category).or_default();
        *turn += usize::from(!goes_on);
        order.push((*turn, i));
    }
    order.sort_unstable();
    let mut samples: Vec<Option<Sample>> = samples.into_iter().map(Some).collect();
    order.into_iter().take(limit).filter_map(|(_, i)| samples[i].take()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::questions::sample;

    fn samples() -> Vec<Sample> {
        // Four questions about two images in one category, then two in another, then one in a third.
        let rows = [("a", 0), ("a", 0), ("a", 1), ("a", 1), ("b", 2), ("b", 2), ("c", 3)];
        let row = |(i, (category, image)): (usize, (&str, i32))| {
            let sample = sample(i.into(), format!("{image}.jpg").into(), "?".to_owned());
            Sample { category: category.to_owned(), ..sample }
        };
        rows.into_iter().enumerate().map(row).collect()
    }

    fn ids(samples: &[Sample]) -> Vec<u64> {
        samples.iter().filter_map(|sample| sample.question_id.as_u64()).collect()
    }

    #[test]
    fn categories_come_in_turn() {
        assert_eq!(ids(&spread(samples(), 7, false)), [0, 4, 6, 1, 5, 2, 3]);
        assert_eq!(ids(&spread(samples(), 7, true)), [0, 1, 4, 5, 6, 2, 3]);
        for together in [false, true] {
            let whole = spread(samples(), usize::MAX, together);
            for limit in 0..=7 {
                assert_eq!(spread(samples(), limit, together), whole[..limit]);
            }
        }
    }
}
