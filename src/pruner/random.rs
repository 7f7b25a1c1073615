//! Random: any patches. The floor that a method must rise above.
//!
//! Every budget's choice is drawn without repetition, uniformly. The same seed keeps the same patches of the same
//! picture on every backend; another picture, another crop or another seed gets others.

use rand::{SeedableRng, rngs::StdRng, seq::index::sample};
use secateur_backends::VlmBackend;

use super::{Cues, Keep, Method, Needs, Pruner, check_budget};
use crate::Error;

/// The floor.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// What the draw starts from.
    pub seed: u64,
}

impl Method for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn idea(&self) -> &'static str {
        "keeps any patches, drawn from --seed and the picture: a floor"
    }

    fn paper(&self) -> &'static str {
        ""
    }

    fn needs(&self) -> Needs {
        Needs { picture: true, ..Needs::default() }
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("seed", self.seed as f64)]
    }
}

impl<B: VlmBackend> Pruner<B> for Random {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        // One stream for all crops: each draws on where the one before it stopped.
        let mut random = StdRng::seed_from_u64(self.seed ^ cues.picture);
        Ok(Keep::new((0..crops).map(|_| sample(&mut random, patches, budget).into_vec()).collect(), budget))
    }
}
