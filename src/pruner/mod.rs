//! Methods that choose which visual tokens the decoder sees.
//!
//! A method is one file with a [`Method`] and a [`Pruner`] (or [`LayerPruner`]) implementation, and one row in the
//! `methods!` list below; the contract tests loop over that list.

mod budget;
mod cdpruner;
mod cosine;
mod cues;
mod datp;
mod divprune;
mod fastervlm;
mod fastv;
mod grid;
mod keep;
mod none;
mod random;
mod scope;
mod topk;
mod trim;
mod visionzip;
mod vispruner;

pub use budget::Budget;
#[cfg(feature = "cli")]
pub(crate) use cdpruner::relevance;
pub use cdpruner::{CdPruner, MAX_THETA};
use cosine::cosines;
pub use cues::{ClsAttention, Cues, Needs, Relevance};
pub use datp::Datp;
pub use divprune::DivPrune;
pub use fastervlm::FasterVlm;
pub use fastv::FastV;
pub use grid::Grid;
pub use keep::{Blend, Keep, check_budget};
pub use none::NoPruning;
pub use random::Random;
pub use scope::Scope;
use secateur_backends::VlmBackend;
use topk::ranked;
pub use topk::top_k;
pub use trim::Trim;
pub use visionzip::VisionZip;
pub use vispruner::VisPruner;

use crate::{Error, image::GridRule};
use burn::tensor::Tensor;

/// The parameters of all methods; each reads its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Params {
    /// The share of VisPruner's budget that goes by attention, in 0..=1.
    pub important_ratio: f64,
    /// The weight of the question in CDPruner, from 0 to [`MAX_THETA`]; `None` takes relevance as the official code does.
    pub theta: Option<f64>,
    /// The decoder layer before which FastV drops tokens, from 1.
    pub fastv_layer: usize,
    /// The seed of random choices.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { important_ratio: 0.5, theta: None, fastv_layer: 2, seed: 0 }
    }
}

/// Lists the methods once, for any backend: those that prune before the decoder, then those that prune inside it.
macro_rules! methods {
    (before { $($params:pat => $method:expr),* $(,)? } inside { $($inside:pat => $layer:expr),* $(,)? }) => {
        /// Every method as it describes itself, the baseline first.
        pub fn methods(params: Params) -> Vec<Box<dyn Method>> {
            vec![$({ let $params = params; Box::new($method) },)* $({ let $inside = params; Box::new($layer) },)*]
        }

        /// Every method, ready to run on `B`.
        fn selectors<B: VlmBackend>(params: Params) -> Vec<Selector<B>> {
            vec![
                $({ let $params = params; Selector::Before(Box::new($method)) },)*
                $({ let $inside = params; Selector::Inside(Box::new($layer)) },)*
            ]
        }
    };
}

methods! {
    before {
        _ => NoPruning::default(),
        _ => FasterVlm,
        Params { important_ratio, .. } => VisPruner { important_ratio },
        Params { theta, .. } => CdPruner { theta },
        _ => Datp,
        _ => DivPrune,
        _ => VisionZip,
        _ => Scope,
        _ => Trim,
        Params { seed, .. } => Random { seed },
        _ => Grid,
    }
    inside {
        Params { fastv_layer, .. } => FastV { layer: fastv_layer },
    }
}

/// A method that is ready to run.
pub enum Selector<B: VlmBackend> {
    /// A method that prunes before the decoder.
    Before(Box<dyn Pruner<B>>),
    /// A method that prunes inside the decoder.
    Inside(Box<dyn LayerPruner<B>>),
}

impl<B: VlmBackend> Selector<B> {
    /// The method as it describes itself.
    pub fn method(&self) -> &dyn Method {
        match self {
            Self::Before(pruner) => &**pruner,
            Self::Inside(pruner) => &**pruner,
        }
    }
}

/// The method called `name`, as it describes itself.
///
/// # Errors
/// When there is none of that name.
pub fn method(name: &str, params: Params) -> Result<Box<dyn Method>, Error> {
    methods(params).into_iter().find(|method| method.name() == name).ok_or_else(|| unknown(name))
}

/// The method called `name`, ready to run on `B`.
///
/// # Errors
/// When there is none of that name.
pub fn selector<B: VlmBackend>(name: &str, params: Params) -> Result<Selector<B>, Error> {
    selectors(params).into_iter().find(|selector| selector.method().name() == name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    let known = methods(Params::default()).iter().map(|method| method.name()).collect::<Vec<_>>().join(", ");
    Error::UnknownMethod { name: name.to_owned(), known }
}

/// The place at which a method drops tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: no pruning.
    Nowhere,
    /// Between the vision tower and the decoder.
    Tower,
    /// Inside the decoder.
    Llm,
}

impl Place {
    /// The place in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nowhere => "",
            Self::Tower => "tower",
            Self::Llm => "LLM",
        }
    }
}

/// The way in which a method's own repository treats LLaVA-NeXT's crops, if it has one that works on crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// The rule that chooses the grid of tiles.
    pub grid: GridRule,
    /// Whether rows end with a newline token and padding is cut off, where the checkpoint was trained so.
    pub unpad: bool,
}

/// The description of a method, which does not depend on the backend.
#[derive(Clone, Copy, Debug)]
pub struct Card {
    /// The name that `--method` takes.
    pub name: &'static str,
    /// The idea in one line.
    pub idea: &'static str,
    /// The paper, or the code where there is no paper; empty for baselines.
    pub paper: &'static str,
    /// The cues that must be computed for the method before the decoder; by default none.
    pub needs: Needs,
    /// The place at which the method drops tokens; by default the tower.
    pub place: Place,
    /// The way in which the method's repository treats LLaVA-NeXT's crops; by default LLaVA's grid and no newline
    /// tokens, since pruned rows have no ends.
    pub tiling: Tiling,
}

impl Default for Card {
    fn default() -> Self {
        Self {
            name: "",
            idea: "",
            paper: "",
            needs: Needs::default(),
            place: Place::Tower,
            tiling: Tiling { grid: GridRule::Llava, unpad: false },
        }
    }
}

/// A method, which does not depend on the backend.
pub trait Method: Send + Sync {
    /// The description of the method.
    fn card(&self) -> Card;
    /// The name that `--method` takes.
    fn name(&self) -> &'static str {
        self.card().name
    }
    /// The decoder layer before which the method drops tokens; `None` if it does not prune inside the decoder.
    fn cut_layer(&self) -> Option<usize> {
        None
    }
    /// Whether the `[CLS]` tokens of a video's frames are passed on to the decoder, as in Video-LLaVA's own code.
    fn keeps_class(&self) -> bool {
        false
    }
    /// The names and values of the method's parameters.
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// A method that chooses tokens before the decoder. It holds no weights.
pub trait Pruner<B: VlmBackend>: Method {
    /// Chooses `budget` patches of every crop.
    ///
    /// # Errors
    /// When a cue that [`Card::needs`] names is missing or of another number of layers, or the budget is not between
    /// 1 and the patch count.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error>;

    /// The score by which the method ranks patches, `[crops, patches]`, higher first; `None` for a method without one.
    /// It is for drawing: a method may choose by more than its score.
    ///
    /// # Errors
    /// As [`Self::keep`].
    fn score(&self, _cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        Ok(None)
    }
}

/// A method that drops visual tokens between two layers of the decoder.
pub trait LayerPruner<B: VlmBackend>: Method {
    /// The number of layers that see all tokens, at least 1.
    fn layer(&self) -> usize;

    /// Chooses `budget` visual tokens, ascending, by the attention of the last layer before the cut.
    ///
    /// # Shapes
    /// - `attention`: `[heads, tokens]`, the attention of the prompt's last token to every visual token
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of tokens.
    fn keep(&self, attention: Tensor<B, 2>, budget: usize) -> Result<Vec<usize>, Error>;
}
