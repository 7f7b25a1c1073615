//! No pruning: every patch is kept. The baseline row of every table.

use secateur_backends::VlmBackend;

use super::{Cues, Keep, Method, Needs, Place, Pruner, Tiling, check_budget};
use crate::{Error, image::GridRule};

/// The baseline.
#[derive(Clone, Copy, Debug)]
pub struct NoPruning;

impl Method for NoPruning {
    fn name(&self) -> &'static str {
        "none"
    }

    fn idea(&self) -> &'static str {
        "keeps every token: the baseline"
    }

    fn paper(&self) -> &'static str {
        ""
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }

    fn place(&self) -> Place {
        Place::Nowhere
    }

    /// LLaVA's own.
    fn tiling(&self) -> Tiling {
        Tiling { grid: GridRule::Llava, unpad: true }
    }
}

impl<B: VlmBackend> Pruner<B> for NoPruning {
    /// Keeps all patches, whatever the budget, which must still be a possible one.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        Ok(Keep::new(vec![(0..patches).collect(); crops], patches))
    }
}
