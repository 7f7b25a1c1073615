//! Methods that choose which visual tokens the language model sees.
//!
//! A method is one file with a [`Method`] and a [`Pruner`] implementation, and one row in the `methods!` list below;
//! the contract tests loop over that list.

mod cues;
mod datp;
mod fastervlm;
mod none;
mod topk;
mod vispruner;

use burn::tensor::backend::Backend;
pub use cues::{ClsAttention, Cues, Needs};
pub use datp::Datp;
pub use fastervlm::FasterVlm;
pub use none::NoPruning;
pub use topk::top_k;
use topk::{host, ranked};
pub use vispruner::VisPruner;

use crate::Error;

/// The parameters of all methods; each reads its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// VisPruner's share of the budget that goes by attention, in 0..=1.
    pub important_ratio: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self { important_ratio: 0.5 }
    }
}

/// Lists the methods once, for whatever backend they are asked for.
macro_rules! methods {
    ($($params:pat => $method:expr),* $(,)?) => {
        /// Every method, the baseline first.
        pub fn methods() -> Vec<Box<dyn Method>> {
            let params = Params::default();
            vec![$({ let $params = params; Box::new($method) }),*]
        }

        /// The method called `name`, as it describes itself.
        ///
        /// # Errors
        /// When there is none of that name.
        pub fn method(name: &str, params: Params) -> Result<Box<dyn Method>, Error> {
            let all: Vec<Box<dyn Method>> = vec![$({ let $params = params; Box::new($method) }),*];
            all.into_iter().find(|method| method.name() == name).ok_or_else(|| unknown(name))
        }

        /// The method called `name`, ready to run on `B`.
        ///
        /// # Errors
        /// When there is none of that name.
        pub fn pruner<B: Backend>(name: &str, params: Params) -> Result<Box<dyn Pruner<B>>, Error> {
            let all: Vec<Box<dyn Pruner<B>>> = vec![$({ let $params = params; Box::new($method) }),*];
            all.into_iter().find(|method| method.name() == name).ok_or_else(|| unknown(name))
        }
    };
}

methods! {
    _ => NoPruning,
    _ => FasterVlm,
    Params { important_ratio } => VisPruner { important_ratio },
    _ => Datp,
}

fn unknown(name: &str) -> Error {
    let known = methods().iter().map(|method| method.name()).collect::<Vec<_>>().join(", ");
    Error::UnknownMethod { name: name.to_owned(), known }
}

/// What a method is, whatever it runs on.
pub trait Method: Send + Sync {
    /// What `--method` takes.
    fn name(&self) -> &'static str;
    /// The idea in one line.
    fn idea(&self) -> &'static str;
    /// The paper; empty for baselines.
    fn paper(&self) -> &'static str;
    /// What must be computed for it.
    fn needs(&self) -> Needs;
    /// The parameters that it was made with.
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// A method that chooses tokens before the language model. It holds no weights.
pub trait Pruner<B: Backend>: Method {
    /// Chooses `budget` patches of every crop.
    ///
    /// # Errors
    /// When a cue that [`Method::needs`] names is missing or of another number of layers, or the budget is not between 1
    /// and the patch count.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error>;
}

/// The kept patches of every crop, ascending.
///
/// They live on the host: a few hundred numbers, which every consumer (gathering, reports, tests) reads, and which
/// order the same on every backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    indices: Vec<Vec<usize>>,
    budget: usize,
}

impl Keep {
    /// Sorts the chosen patches of every crop: `budget` of them in each, all different.
    pub fn new(mut indices: Vec<Vec<usize>>, budget: usize) -> Self {
        for crop in &mut indices {
            crop.sort_unstable();
            assert!(
                crop.len() == budget && crop.windows(2).all(|pair| pair[0] < pair[1]),
                "a method broke its contract"
            );
        }
        Self { indices, budget }
    }

    /// One ascending list a crop.
    pub fn indices(&self) -> &[Vec<usize>] {
        &self.indices
    }

    /// Tokens kept of every crop.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Tokens kept in all.
    pub fn tokens(&self) -> usize {
        self.budget * self.indices.len()
    }
}

/// Refuses budgets that no keep can have.
///
/// # Errors
/// When `budget` is not between 1 and `patches`.
pub fn check_budget(budget: usize, patches: usize) -> Result<(), Error> {
    if (1..=patches).contains(&budget) { Ok(()) } else { Err(Error::Budget { budget, patches }) }
}
