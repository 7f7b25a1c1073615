//! DivPrune: keep the patches that are farthest from each other.
//!
//! Idea: a max-min diversity problem. The first patch is the one whose nearest neighbour is farthest; then always the
//! patch that is farthest from all that were chosen.
//!
//! Paper: "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
//! <https://arxiv.org/abs/2503.02175>. Official code: <https://github.com/vbdi/divprune> (`799e2d95`),
//! `LLaVA/llava/model/llava_arch.py`, `DivPrune`. Checked: against this project's own float64 transcription of that
//! rule on natural cues; the official code was read, not run.
//!
//! Distance: 1 − cosine of projected features.
//!
//! Deviations: the budget is a number of patches of each crop (there: a share of all visual tokens together,
//! LLaVA-NeXT's newline tokens among them, padding not); a patch is never chosen twice (there: possible when all that
//! is left are duplicates); a feature of length zero is at distance 1 from everything (there: NaN); ties go to the first patch.
//!
//! Defaults: none; it has no parameters.

use rayon::prelude::*;
use secateur_backends::VlmBackend;

use super::{Card, Cues, Keep, Method, Needs, Pruner, check_budget, cosines};
use crate::Error;

/// The DivPrune method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct DivPrune;

impl Method for DivPrune {
    fn card(&self) -> Card {
        Card {
            name: "divprune",
            idea: "keeps the patches that are farthest from each other",
            paper: "https://arxiv.org/abs/2503.02175",
            needs: Needs { projected: true, ..Needs::default() },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for DivPrune {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let features = cues.projected(self.name())?;
        let [_, patches, _] = features.dims();
        check_budget(budget, patches)?;
        let chosen = cosines(features).into_par_iter().map(|crop| farthest(&crop, patches, budget));
        Ok(Keep::new(chosen.collect(), budget))
    }
}

/// Chooses `budget` patches, each as far as possible from those before it.
fn farthest(cosines: &[f64], patches: usize, budget: usize) -> Vec<usize> {
    let distance = |a: usize, b: usize| 1.0 - cosines[a * patches + b];
    let nearest = |a: usize| (0..patches).filter(|&b| b != a).map(|b| distance(a, b)).fold(f64::INFINITY, f64::min);
    // The distance of each patch to the nearest chosen one; before the first choice, to the nearest other patch.
    let mut gap: Vec<f64> = (0..patches).map(nearest).collect();
    let mut open: Vec<usize> = (0..patches).collect();
    let mut chosen = Vec::with_capacity(budget);
    while chosen.len() < budget {
        let farthest = (1..open.len()).fold(0, |best, i| if gap[open[i]] > gap[open[best]] { i } else { best });
        let next = open.remove(farthest);
        for &patch in &open {
            let near = if chosen.is_empty() { f64::INFINITY } else { gap[patch] };
            gap[patch] = near.min(distance(next, patch));
        }
        chosen.push(next);
    }
    chosen
}
