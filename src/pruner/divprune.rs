//! DivPrune: keep the patches that are farthest from each other.
//!
//! Idea: a max-min diversity problem. The first patch is the one whose nearest neighbour is farthest; then always the
//! patch that is farthest from all that were chosen.
//!
//! Paper: "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models",
//! <https://arxiv.org/abs/2503.02175>. Official code: <https://github.com/vbdi/divprune> (`799e2d95`),
//! `LLaVA/llava/model/llava_arch.py`, `DivPrune`. Checked: against this project's own float64 transcription of that rule
//! on natural cues; the official code was read, not run.
//!
//! Distance: 1 − cosine of projected features.
//!
//! Deviations: the budget is a number of patches of each crop (there: a share of all visual tokens together, LLaVA-NeXT's
//! newline tokens among them); a patch is never chosen twice (there: possible when all that is left are duplicates); a
//! feature of length zero is at distance 1 from everything (there: NaN); ties go to the first patch.

use burn::tensor::DType;
use rayon::prelude::*;
use secateur_backends::VlmBackend;

use super::{Cues, Keep, Method, Needs, Pruner, check_budget, host};
use crate::Error;

/// The method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct DivPrune;

impl Method for DivPrune {
    fn name(&self) -> &'static str {
        "divprune"
    }

    fn idea(&self) -> &'static str {
        "keeps the patches that are farthest from each other"
    }

    fn paper(&self) -> &'static str {
        "https://arxiv.org/abs/2503.02175"
    }

    fn needs(&self) -> Needs {
        Needs { projected: true, ..Needs::default() }
    }
}

impl<B: VlmBackend> Pruner<B> for DivPrune {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let features = cues.projected(self.name())?.cast(DType::F32);
        let [_, patches, _] = features.dims();
        check_budget(budget, patches)?;
        let norm = features.clone().square().sum_dim(2).sqrt();
        let zero = norm.clone().lower_equal_elem(0.0);
        let unit = features / norm.mask_fill(zero, 1.0);
        // One transfer; the search itself is a few thousand comparisons.
        let cosines = host(unit.clone().matmul(unit.swap_dims(1, 2)));
        let chosen = cosines.par_chunks(patches * patches).map(|crop| farthest(crop, patches, budget));
        Ok(Keep::new(chosen.collect(), budget))
    }
}

/// `budget` patches, each as far as possible from those before it.
fn farthest(cosines: &[f32], patches: usize, budget: usize) -> Vec<usize> {
    let distance = |a: usize, b: usize| 1.0 - cosines[a * patches + b];
    let nearest = |a: usize| (0..patches).filter(|&b| b != a).map(|b| distance(a, b)).fold(f32::INFINITY, f32::min);
    let first = best((0..patches).map(nearest));
    let mut chosen = vec![first];
    let mut gap: Vec<f32> = (0..patches).map(|patch| distance(first, patch)).collect();
    gap[first] = f32::NEG_INFINITY;
    while chosen.len() < budget {
        let next = best(gap.iter().copied());
        chosen.push(next);
        for (patch, gap) in gap.iter_mut().enumerate() {
            *gap = gap.min(distance(next, patch));
        }
        gap[next] = f32::NEG_INFINITY;
    }
    chosen
}

/// Where the largest value is; of equals, the first.
fn best(values: impl Iterator<Item = f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, value) in values.enumerate() {
        if value > best.1 {
            best = (i, value);
        }
    }
    best.0
}
