//! Random: any patches. The baseline that a method must beat.
//!
//! The patches are drawn uniformly, without repetition. The same seed keeps the same patches of the same image on every
//! backend; another image, another crop or another seed gets others.

use rand::{SeedableRng, rngs::StdRng, seq::index::sample};
use secateur_backends::VlmBackend;

use super::{Card, Cues, Keep, Method, Needs, Pruner, check_budget};
use crate::Error;

/// The random baseline.
#[derive(Clone, Copy, Debug)]
pub struct Random {
    /// The seed of the draw.
    pub seed: u64,
}

impl Method for Random {
    fn card(&self) -> Card {
        Card {
            name: "random",
            idea: "keeps any patches, drawn from --seed and the image: a baseline",
            needs: Needs { fingerprint: true, ..Needs::default() },
            ..Card::default()
        }
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("seed", self.seed as f64)]
    }
}

impl<B: VlmBackend> Pruner<B> for Random {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        // All crops share one random stream: each crop goes on where the crop before it stopped.
        let mut random = StdRng::seed_from_u64(self.seed ^ cues.fingerprint);
        Ok(Keep::new((0..crops).map(|_| sample(&mut random, patches, budget).into_vec()).collect(), budget))
    }
}
