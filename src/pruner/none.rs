//! No pruning: every patch is kept. It is the baseline row of every table.

use secateur_backends::VlmBackend;

use super::{Card, Cues, Keep, Method, Place, Pruner, Tiling, check_budget};
use crate::{Error, image::GridRule};

/// The baseline without pruning.
#[derive(Clone, Copy, Debug)]
pub struct NoPruning {
    /// The way in which crops are treated: LLaVA's own, or that of a method that prunes later.
    pub tiling: Tiling,
    /// Whether the `[CLS]` tokens of a video's frames are passed on to the decoder.
    pub class: bool,
}

impl Default for NoPruning {
    fn default() -> Self {
        Self { tiling: Tiling { grid: GridRule::Llava, unpad: true }, class: true }
    }
}

impl Method for NoPruning {
    fn card(&self) -> Card {
        Card {
            name: "none",
            idea: "keeps every token: the baseline",
            place: Place::Nowhere,
            tiling: self.tiling,
            ..Card::default()
        }
    }

    fn keeps_class(&self) -> bool {
        self.class
    }
}

impl<B: VlmBackend> Pruner<B> for NoPruning {
    /// Keeps all patches, whatever the budget. The budget must still be a possible one.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        Ok(Keep::new(vec![(0..patches).collect(); crops], patches))
    }
}
