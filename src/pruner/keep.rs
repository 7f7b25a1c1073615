//! The choice of a method: which patches it keeps, and which it merges into one token.

use crate::Error;

/// A token made of several patches: `centre`, if there is one, plus the mean of `others`, if there are any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blend {
    /// The patch whose place the token takes.
    pub centre: Option<usize>,
    /// The patches whose mean is added.
    pub others: Vec<usize>,
}

/// The kept patches of every crop, ascending.
///
/// They live on the host: a few hundred numbers, which every consumer (gathering, reports, tests) reads, and which have
/// the same order on every backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    indices: Vec<Vec<usize>>,
    plain: Vec<Vec<usize>>,
    blends: Vec<Vec<Blend>>,
    budget: usize,
}

impl Keep {
    /// Sorts the chosen patches of every crop: `budget` of them in each, all different.
    ///
    /// # Panics
    /// When a crop has another number of patches, or one twice: the method has an error.
    pub fn new(indices: Vec<Vec<usize>>, budget: usize) -> Self {
        let blends = vec![Vec::new(); indices.len()];
        Self::with_blends(indices, blends, budget)
    }

    /// Sorts the chosen patches of every crop, and takes the tokens that are made of several patches, equally many in
    /// every crop. The `plain` patches and the blends' centres are `budget` patches in each crop, all different.
    ///
    /// # Panics
    /// When one of this does not hold: the method has an error.
    pub fn with_blends(mut plain: Vec<Vec<usize>>, blends: Vec<Vec<Blend>>, budget: usize) -> Self {
        plain.iter_mut().for_each(|crop| crop.sort_unstable());
        let indices: Vec<Vec<usize>> = plain
            .iter()
            .zip(&blends)
            .map(|(plain, blends)| {
                let mut all: Vec<usize> =
                    plain.iter().copied().chain(blends.iter().filter_map(|blend| blend.centre)).collect();
                all.sort_unstable();
                all
            })
            .collect();
        let sound = |crop: &Vec<usize>| crop.len() == budget && crop.windows(2).all(|pair| pair[0] < pair[1]);
        let even = blends.windows(2).all(|pair| pair[0].len() == pair[1].len());
        let counts = || indices.iter().map(Vec::len).collect::<Vec<_>>();
        assert!(indices.iter().all(sound), "a method kept {:?} patches, not {budget} different ones a crop", counts());
        assert!(even, "a method made other numbers of blended tokens in different crops");
        Self { indices, plain, blends, budget }
    }

    /// The kept patches, one ascending list for each crop, the centres of blends included.
    pub fn indices(&self) -> &[Vec<usize>] {
        &self.indices
    }

    /// The patches that are kept as they are.
    pub fn plain(&self) -> &[Vec<usize>] {
        &self.plain
    }

    /// The tokens that are made of several patches.
    pub fn blends(&self) -> &[Vec<Blend>] {
        &self.blends
    }

    /// The number of patches kept of every crop.
    pub fn budget(&self) -> usize {
        self.budget
    }
}

/// Refuses budgets that no keep can have.
///
/// # Errors
/// When `budget` is not between 1 and `patches`.
pub fn check_budget(budget: usize, patches: usize) -> Result<(), Error> {
    if (1..=patches).contains(&budget) { Ok(()) } else { Err(Error::Budget { budget, patches }) }
}
