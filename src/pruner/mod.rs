//! Methods that choose which visual tokens the language model sees.
//!
//! A method is one file with a [`Method`] and a [`Pruner`] (or [`LayerPruner`]) implementation, and one row in the
//! `methods!` list below; the contract tests loop over that list.

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
mod topk;
mod trim;
mod visionzip;
mod vispruner;

#[cfg(feature = "cli")]
pub(crate) use cdpruner::relevance;
pub use cdpruner::{CdPruner, MAX_THETA};
use cosine::cosines;
pub use cues::{ClsAttention, Cues, Needs};
pub use datp::Datp;
pub use divprune::DivPrune;
pub use fastervlm::FasterVlm;
pub use fastv::FastV;
pub use grid::Grid;
pub use keep::{Blend, Keep, check_budget};
pub use none::NoPruning;
pub use random::Random;
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
    /// VisPruner's share of the budget that goes by attention, in 0..=1.
    pub important_ratio: f64,
    /// How much CDPruner listens to the question, from 0 to [`MAX_THETA`]; without it, as the official code does.
    pub theta: Option<f64>,
    /// The layer of the language model before which FastV drops tokens, from 1.
    pub fastv_layer: usize,
    /// What random choices start from.
    pub seed: u64,
}

impl Default for Params {
    fn default() -> Self {
        Self { important_ratio: 0.5, theta: None, fastv_layer: 2, seed: 0 }
    }
}

/// Lists the methods once, for whatever backend they are asked for: those that prune before the language model, then
/// those that prune inside it.
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
    /// It prunes before the language model.
    Before(Box<dyn Pruner<B>>),
    /// It prunes inside the language model.
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

/// Where a method drops tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the baseline.
    Nowhere,
    /// Between the vision tower and the language model.
    Tower,
    /// Inside the language model.
    Llm,
}

impl Place {
    /// In one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nowhere => "",
            Self::Tower => "tower",
            Self::Llm => "LLM",
        }
    }
}

/// What a method's own repository does with LLaVA-NeXT's crops, where it has a way that works on crops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    /// How the grid of tiles is chosen.
    pub grid: GridRule,
    /// Whether rows end with a newline token and padding is cut off, where the checkpoint was trained so.
    pub unpad: bool,
}

/// What a method is, whatever it runs on.
pub trait Method: Send + Sync {
    /// What `--method` takes.
    fn name(&self) -> &'static str;
    /// The idea in one line.
    fn idea(&self) -> &'static str;
    /// The paper, or the code where there is none; empty for floors and baselines.
    fn paper(&self) -> &'static str;
    /// What must be computed for it before the language model; by default nothing.
    fn needs(&self) -> Needs {
        Needs::default()
    }
    /// Where it drops tokens.
    fn place(&self) -> Place {
        Place::Tower
    }
    /// What its repository does with LLaVA-NeXT's crops; by default LLaVA's grid and no newlines, since pruned rows have
    /// no ends.
    fn tiling(&self) -> Tiling {
        Tiling { grid: GridRule::Llava, unpad: false }
    }
    /// Before which of the language model's layers it drops tokens, where it does so there.
    fn cut_layer(&self) -> Option<usize> {
        None
    }
    /// Whether `[CLS]` tokens of a video's frames go on, as Video-LLaVA's own code has it.
    fn keeps_class(&self) -> bool {
        false
    }
    /// The parameters that it was made with.
    fn parameters(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// A method that chooses tokens before the language model. It holds no weights.
pub trait Pruner<B: VlmBackend>: Method {
    /// Chooses `budget` patches of every crop.
    ///
    /// # Errors
    /// When a cue that [`Method::needs`] names is missing or of another number of layers, or the budget is not between 1
    /// and the patch count.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error>;

    /// What it ranks patches by, `[crops, patches]`, higher first; `None` for a method that has no such number. For pictures of
    /// it: a method may choose by more.
    ///
    /// # Errors
    /// As [`Self::keep`].
    fn score(&self, _cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        Ok(None)
    }
}

/// A method that drops visual tokens between two layers of the language model.
pub trait LayerPruner<B: VlmBackend>: Method {
    /// How many layers see all tokens; at least 1.
    fn layer(&self) -> usize;

    /// Chooses `budget` visual tokens, ascending, by what the last layer before the cut attends to.
    ///
    /// # Shapes
    /// - `attention`: `[heads, tokens]`, what the last token of the prompt pays to every visual token
    ///
    /// # Errors
    /// When the budget is not between 1 and the number of tokens.
    fn keep(&self, attention: Tensor<B, 2>, budget: usize) -> Result<Vec<usize>, Error>;
}
