//! Methods that choose which visual tokens the language model sees.
//!
//! A method is one file with a [`Method`] and a [`Pruner`] implementation, and one row in the `methods!` list below;
//! the contract tests loop over that list.

mod fastervlm;
mod none;
mod topk;

use burn::tensor::{Tensor, backend::Backend};

pub use fastervlm::FasterVlm;
pub use none::NoPruning;
pub use topk::top_k;

use crate::Error;

/// Lists the methods once, for whatever backend they are asked for.
macro_rules! methods {
    ($($method:expr),* $(,)?) => {
        /// Every method, the baseline first.
        pub fn methods() -> Vec<Box<dyn Method>> {
            vec![$(Box::new($method)),*]
        }

        /// The method called `name`, ready to run on `B`.
        ///
        /// # Errors
        /// When there is none of that name.
        pub fn pruner<B: Backend>(name: &str) -> Result<Box<dyn Pruner<B>>, Error> {
            let all: Vec<Box<dyn Pruner<B>>> = vec![$(Box::new($method)),*];
            all.into_iter().find(|method| method.name() == name).ok_or_else(|| Error::UnknownMethod {
                name: name.to_owned(),
                known: methods().iter().map(|method| method.name()).collect::<Vec<_>>().join(", "),
            })
        }
    };
}

methods![NoPruning, FasterVlm];

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
}

/// A method that chooses tokens before the language model. It holds no weights.
pub trait Pruner<B: Backend>: Method {
    /// Chooses `budget` patches of every crop.
    ///
    /// # Errors
    /// When a cue that [`Method::needs`] names is missing, or the budget is not between 1 and the patch count.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error>;
}

/// What a method reads; anything else is not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Rows of the tower's attention.
    pub cls_attention: ClsAttention,
}

/// Which layers' `[CLS]` attention a method reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClsAttention {
    /// None.
    #[default]
    None,
    /// That of the layer whose features are used.
    Selected,
}

/// What a method may look at.
#[derive(Clone, Debug, Default)]
pub struct Cues<B: Backend> {
    /// Tower features, `[crops, patches, hidden]`.
    pub features: Option<Tensor<B, 3>>,
    /// `[CLS]` attention, `[layers, crops, heads, patches]`; one layer unless a method asks for more.
    pub cls_attention: Option<Tensor<B, 4>>,
}

impl<B: Backend> Cues<B> {
    /// The `[CLS]` attention, for `method`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn cls_attention(&self, method: &'static str) -> Result<Tensor<B, 4>, Error> {
        let shape = "[layers, crops, heads, patches]";
        self.cls_attention.clone().ok_or(Error::MissingCue { method, cue: "cls_attention", shape })
    }

    /// Crops and patches, from whichever cue is there.
    pub fn grid(&self) -> Option<(usize, usize)> {
        let from_features = self.features.as_ref().map(|features| {
            let [crops, patches, _] = features.dims();
            (crops, patches)
        });
        from_features.or_else(|| {
            self.cls_attention.as_ref().map(|attention| {
                let [_, crops, _, patches] = attention.dims();
                (crops, patches)
            })
        })
    }
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
    /// Sorts the chosen patches of every crop.
    pub fn new(mut indices: Vec<Vec<usize>>, budget: usize) -> Self {
        for crop in &mut indices {
            crop.sort_unstable();
            debug_assert!(crop.len() == budget && crop.windows(2).all(|pair| pair[0] < pair[1]));
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
