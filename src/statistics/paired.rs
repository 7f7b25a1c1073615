//! Two runs on the same questions.

use std::collections::{BTreeMap, HashMap};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::{
    Marks, Unit,
    marks::{combine, quotient},
    mcnemar,
};

/// The number of resamples; a fifth of it for large benchmarks, whose intervals vary less.
const RESAMPLES: u64 = 10_000;
/// The number of units from which a benchmark is large.
const LARGE: usize = 20_000;
/// The chance of being wrong that is accepted.
const LEVEL: f64 = 0.05;

/// The differences between two runs, on the questions that they share.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The number of questions that both answer.
    pub n: usize,
    /// The scores of both over these.
    pub scores: [f64; 2],
    /// The second score less the first.
    pub difference: f64,
    /// The 95 % interval of the difference, from a paired bootstrap (percentiles).
    pub interval: [f64; 2],
    /// The numbers of questions on which only the first, and only the second, run is right or nearer to it.
    pub better: [usize; 2],
    /// The p-value of McNemar's exact test on these.
    pub p: f64,
    /// Whether the data carry the difference: the interval leaves out 0, and p is below 0.05.
    pub clear: bool,
}

impl Comparison {
    /// The comparison with its scores in another unit.
    #[must_use]
    pub fn map(mut self, unit: impl Fn(f64) -> f64) -> Self {
        self.scores = self.scores.map(&unit);
        self.interval = self.interval.map(&unit);
        self.difference = unit(self.difference);
        self
    }
}

/// A unit in both runs.
type Pair<'a> = [&'a Unit; 2];

/// Compares two runs of a benchmark; `None` where they share no question.
pub fn compare(first: &Marks, second: &Marks) -> Option<Comparison> {
    let strata = common_units(first, second);
    let scores = scores(&strata, first)?;
    let (n, better) = differing(first, second);
    let units: usize = strata.iter().map(Vec::len).sum();
    let resamples = if units < LARGE { RESAMPLES } else { RESAMPLES / 5 };
    let mut differences: Vec<f64> = (0..resamples)
        .into_par_iter()
        .filter_map(|seed| {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let drawn: Vec<Vec<Pair>> = strata.iter().map(|pairs| draw(pairs, &mut random)).collect();
            let [a, b] = self::scores(&drawn, first)?;
            Some(b - a)
        })
        .collect();
    differences.sort_by(f64::total_cmp);
    let interval = [LEVEL / 2.0, 1.0 - LEVEL / 2.0].map(|share| percentile(&differences, share));
    let p = mcnemar(better[0], better[1]);
    let clear = p < LEVEL && (interval[0] > 0.0 || interval[1] < 0.0);
    Some(Comparison { n, scores, difference: scores[1] - scores[0], interval, better, p, clear })
}

/// As many units as there are, each drawn from all.
fn draw<'a>(pairs: &[Pair<'a>], random: &mut impl Rng) -> Vec<Pair<'a>> {
    (0..pairs.len()).map(|_| pairs[random.random_range(0..pairs.len())]).collect()
}

/// The score of both runs.
fn scores(strata: &[Vec<Pair>], marks: &Marks) -> Option<[f64; 2]> {
    let mut of_strata = [Vec::with_capacity(strata.len()), Vec::with_capacity(strata.len())];
    for pairs in strata {
        let mut sums = [[0.0; 2]; 2];
        for pair in pairs {
            for (sums, unit) in sums.iter_mut().zip(pair) {
                sums[0] += unit.part;
                sums[1] += unit.whole;
            }
        }
        for (scores, [part, whole]) in of_strata.iter_mut().zip(sums) {
            scores.push(quotient(part, whole));
        }
    }
    let [a, b] = of_strata.map(|scores| combine(&scores, marks.combine));
    Some([a?, b?])
}

/// The units that both runs have, by category.
fn common_units<'a>(first: &'a Marks, second: &'a Marks) -> Vec<Vec<Pair<'a>>> {
    let theirs: HashMap<&str, &Unit> = second.units.iter().map(|unit| (unit.key.as_str(), unit)).collect();
    let mut strata: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
    for unit in &first.units {
        if let Some(other) = theirs.get(unit.key.as_str()) {
            strata.entry(unit.stratum).or_default().push([unit, other]);
        }
    }
    strata.into_values().collect()
}

/// The number of questions with an answer in both runs, and on how many each is better than the other.
fn differing(first: &Marks, second: &Marks) -> (usize, [usize; 2]) {
    let theirs: HashMap<(&str, &str), f64> =
        second.answers.iter().map(|mark| ((mark.id.as_str(), mark.prompt.as_str()), mark.credit)).collect();
    let (mut n, mut better) = (0, [0; 2]);
    for mark in &first.answers {
        let Some(&other) = theirs.get(&(mark.id.as_str(), mark.prompt.as_str())) else { continue };
        n += 1;
        better[0] += usize::from(mark.credit > other);
        better[1] += usize::from(mark.credit < other);
    }
    (n, better)
}

/// The value below which a share of the sorted `values` lies, between two values by their distance, as NumPy's default.
fn percentile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let low = place.floor() as usize;
    values[low] + (place - place.floor()) * (values[(low + 1).min(last)] - values[low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::Mark;

    fn marks(credits: impl Iterator<Item = f64>) -> Marks {
        let mut marks = Marks::new("acc");
        for (i, credit) in credits.enumerate() {
            marks.mark(Mark { id: i.to_string(), prompt: String::new(), credit, right: String::new() });
        }
        marks
    }

    /// From SciPy 1.17.1: `bootstrap` of the difference of two means over 400 pairs, 100,000 resamples, percentiles.
    #[test]
    fn intervals_are_near_those_of_scipy() {
        let right = |right: bool| if right { 1.0 } else { 0.0 };
        let a: Vec<f64> = (0..400_u64).map(|i| right((i * 7919) % 10 < 8)).collect();
        let b = (0..400_u64).map(|i| if i % 3 == 0 { a[i as usize] } else { right((i * 104_729 + 3) % 10 < 7) });
        let found = compare(&marks(a.iter().copied()), &marks(b)).unwrap();
        assert_eq!((found.n, found.clear), (400, true));
        assert!((found.scores[0] - 0.8).abs() < 1e-12 && (found.difference + 0.065).abs() < 1e-12);
        assert!((found.interval[0] + 0.1225).abs() < 0.003, "{:?}", found.interval);
        assert!((found.interval[1] + 0.0075).abs() < 0.003, "{:?}", found.interval);
        assert_eq!(found.p, mcnemar(found.better[0], found.better[1]));
    }

    #[test]
    fn a_difference_of_few_questions_is_not_clear() {
        let found = compare(&marks([1.0, 1.0, 1.0, 0.0].into_iter()), &marks([0.0; 3].into_iter())).unwrap();
        assert_eq!((found.n, found.better, found.clear), (3, [3, 0], false));
        assert!((found.p - 0.25).abs() < 1e-12);
        assert_eq!((found.scores, found.interval), ([1.0, 0.0], [-1.0, -1.0]));
        assert_eq!(compare(&marks(std::iter::empty()), &marks(std::iter::once(1.0))), None);
    }

    #[test]
    fn equal_runs_do_not_differ() {
        let run = marks((0..50).map(|i| f64::from(i % 2)));
        let found = compare(&run, &run).unwrap();
        assert_eq!((found.difference, found.interval, found.p, found.clear), (0.0, [0.0, 0.0], 1.0, false));
    }
}
