//! The marks of a benchmark's answers, and the score and the standard error that follow from them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

/// The mark of one answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Mark {
    /// The question's id as text.
    pub id: String,
    /// The question as the answers file has it; questions may share an id.
    pub prompt: String,
    /// The worth of the answer, from 0 (wrong) to 1 (right).
    pub credit: f64,
    /// The right answer, for people; empty where there is none to show.
    pub right: String,
}

/// A unit that is drawn at random when questions are drawn: a question, or all questions about an image where these are scored together.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Unit {
    /// The name that the unit has in every run.
    pub key: String,
    /// The number of its category, where each category has a score of its own.
    pub stratum: usize,
    /// The addend to the numerator of its category's score.
    pub part: f64,
    /// The addend to the denominator.
    pub whole: f64,
}

/// How the scores of categories become the benchmark's.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// Their mean.
    #[default]
    Mean,
    /// Their sum.
    Sum,
}

/// The marks behind a benchmark's headline metric: in each category, the sum of `part` divided by the sum of `whole`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Marks {
    /// The name of the metric.
    pub metric: String,
    /// The answers, in the order in which they are scored.
    pub answers: Vec<Mark>,
    /// The units that are drawn at random.
    pub units: Vec<Unit>,
    /// How categories are combined.
    pub combine: Combine,
}

impl Marks {
    /// Marks for `metric`, which [`Marks::mark`] fills.
    pub fn new(metric: &str) -> Self {
        Self { metric: metric.to_owned(), ..Self::default() }
    }

    /// Adds an answer that is a unit of its own, so that the metric is the mean of the credits.
    pub fn mark(&mut self, mark: Mark) {
        let key = format!("{}\n{}", mark.id, mark.prompt);
        self.units.push(Unit { key, stratum: 0, part: mark.credit, whole: 1.0 });
        self.answers.push(mark);
    }

    /// The metric; `None` without a unit.
    pub fn score(&self) -> Option<f64> {
        let of_strata = self.strata().into_values().map(|units| ratio(&units)).collect::<Vec<_>>();
        combine(&of_strata, self.combine)
    }

    /// The standard error of the metric: for a mean that of SciPy's `sem`, for a ratio of sums its linearisation; `None` where a category has fewer
    /// than two units.
    pub fn standard_error(&self) -> Option<f64> {
        let strata = self.strata();
        let variances = strata.values().map(|units| variance(units)).collect::<Option<Vec<f64>>>()?;
        let share = match self.combine {
            Combine::Mean => strata.len() as f64,
            Combine::Sum => 1.0,
        };
        (!variances.is_empty()).then(|| variances.iter().sum::<f64>().sqrt() / share)
    }

    fn strata(&self) -> BTreeMap<usize, Vec<&Unit>> {
        let mut strata: BTreeMap<usize, Vec<&Unit>> = BTreeMap::new();
        for unit in &self.units {
            strata.entry(unit.stratum).or_default().push(unit);
        }
        strata
    }

    /// The map of `standard_errors` in a report: the metric and its standard error.
    ///
    /// # Errors
    /// Those of the serializer.
    pub(crate) fn errors<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(error) = self.standard_error() {
            map.serialize_entry(&self.metric, &error)?;
        }
        map.end()
    }

    pub(crate) fn is_without_error(&self) -> bool {
        self.standard_error().is_none()
    }
}

/// The scores of categories as one; `None` without a category.
pub(super) fn combine(of_strata: &[f64], how: Combine) -> Option<f64> {
    let sum: f64 = of_strata.iter().sum();
    match (of_strata.len(), how) {
        (0, _) => None,
        (count, Combine::Mean) => Some(sum / count as f64),
        (_, Combine::Sum) => Some(sum),
    }
}

/// The score of a category; 0 where it divides by 0, as in the benchmarks' own figures.
pub(super) fn quotient(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

fn ratio(units: &[&Unit]) -> f64 {
    quotient(units.iter().map(|unit| unit.part).sum(), units.iter().map(|unit| unit.whole).sum())
}

/// The variance of a category's score.
fn variance(units: &[&Unit]) -> Option<f64> {
    let (count, ratio) = (units.len() as f64, ratio(units));
    let whole: f64 = units.iter().map(|unit| unit.whole).sum();
    let squares: f64 = units.iter().map(|unit| (unit.part - ratio * unit.whole).powi(2)).sum();
    (units.len() > 1).then(|| if whole > 0.0 { count / (count - 1.0) * squares / (whole * whole) } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(i: usize, credit: f64) -> Mark {
        Mark { id: i.to_string(), prompt: String::new(), credit, right: String::new() }
    }

    /// From SciPy 1.17.1: `scipy.stats.sem` of the credits.
    #[test]
    fn the_error_of_a_mean_is_that_of_scipy() {
        let mut marks = Marks::new("acc");
        for (i, credit) in [1.0, 0.0, 1.0, 1.0, 0.0, 0.6, 1.0, 0.3, 1.0, 0.0].into_iter().enumerate() {
            marks.mark(mark(i, credit));
        }
        assert!((marks.score().unwrap() - 0.59).abs() < 1e-12);
        assert!((marks.standard_error().unwrap() - 0.14791138488222524).abs() < 1e-12);
        // A sum over categories adds variances; a mean divides them.
        let of_two = |combine| {
            let second = marks.units.iter().map(|unit| Unit { stratum: 1, ..unit.clone() });
            Marks { units: marks.units.iter().cloned().chain(second).collect(), combine, ..marks.clone() }
        };
        let (sum, mean) = (of_two(Combine::Sum), of_two(Combine::Mean));
        assert!((sum.score().unwrap() - 1.18).abs() < 1e-12 && (mean.score().unwrap() - 0.59).abs() < 1e-12);
        let expected = 0.14791138488222524 * 2.0_f64.sqrt();
        assert!((sum.standard_error().unwrap() - expected).abs() < 1e-12);
        assert!((mean.standard_error().unwrap() - expected / 2.0).abs() < 1e-12);
    }

    /// From SciPy 1.17.1: `scipy.stats.bootstrap` of an F1 over 400 pairs with 50,000 resamples has the standard error 0.02677.
    #[test]
    fn the_error_of_an_f1_is_near_that_of_a_bootstrap() {
        let mut marks = Marks::new("f1");
        for i in 0..400_usize {
            let said = (i * 31) % 10 < 6;
            let is = if i % 4 == 0 { said } else { (i * 17) % 10 < 5 };
            let (part, whole) = (2.0 * f64::from(u8::from(said && is)), f64::from(u8::from(said) + u8::from(is)));
            marks.units.push(Unit { key: i.to_string(), stratum: 0, part, whole });
        }
        assert!((marks.score().unwrap() - 0.6363636363636364).abs() < 1e-12);
        let error = marks.standard_error().unwrap();
        assert!((error / 0.02677123917982425 - 1.0).abs() < 0.02, "{error}");
    }

    #[test]
    fn too_few_units_have_no_error() {
        let mut marks = Marks::new("acc");
        assert_eq!((marks.score(), marks.standard_error()), (None, None));
        marks.mark(mark(0, 1.0));
        assert_eq!((marks.score(), marks.standard_error()), (Some(1.0), None));
        marks.mark(mark(1, 1.0));
        assert_eq!(marks.standard_error(), Some(0.0));
        marks.units.iter_mut().for_each(|unit| (unit.part, unit.whole) = (0.0, 0.0));
        assert_eq!((marks.score(), marks.standard_error()), (Some(0.0), Some(0.0)));
    }
}
