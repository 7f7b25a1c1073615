//! VisPruner: keep what the tower attends to, and of the rest what is least like anything else.
//!
//! Idea: a share of the budget goes to the patches with the highest `[CLS]` attention; the other patches are thinned
//! out by removing near-duplicates until the rest of the budget is left.
//!
//! Paper: "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in VLMs",
//! <https://arxiv.org/abs/2412.01818v2>. Official code: <https://github.com/Theia-4869/VisPruner> (`aefa01ad`),
//! `llava/model/llava_arch.py`, `encode_images`.
//!
//! A round pairs the even with the odd positions of the list of remaining patches and drops up to 8 of the even ones,
//! those most similar (cosine of tower features) to any odd one; what is left of the even ones, most similar first,
//! goes before the odd ones.
//!
//! Deviations: a list of odd length has one even position more than odd ones (the official code crashes), and a round
//! never drops more than there are even ones (there: a crash at tiny budgets); features of length zero are similar to
//! nothing (there: NaN); equal attention or similarity goes by position (there: open).
//!
//! The selection is chaotic: one swap of two nearly equal similarities changes all later pairs, and the official code
//! in f32 and in f64 agrees on a third of natural images only. Here similarities are summed on the host and in f64, so
//! that equal features give equal picks on every backend.
//!
//! Defaults: half of the budget by attention (`--important-ratio 0.5`).

use burn::tensor::Tensor;
use rayon::prelude::*;
use secateur_backends::VlmBackend;

use super::{
    Card, ClsAttention, Cues, Keep, Method, Needs, Pruner, Tiling, check_budget, cosines, fastervlm::attention, ranked,
};
use crate::{Error, image::GridRule, tensor::host};

/// The largest number of patches that a round drops.
const ROUND: usize = 8;

/// The VisPruner method.
#[derive(Clone, Copy, Debug)]
pub struct VisPruner {
    /// The share of the budget that goes by attention, in 0..=1.
    pub important_ratio: f64,
}

impl Method for VisPruner {
    fn card(&self) -> Card {
        Card {
            name: "vispruner",
            idea: "keeps the patches that [CLS] attends to, and of the others those without a near-duplicate",
            paper: "https://arxiv.org/abs/2412.01818v2",
            needs: Needs { cls_attention: ClsAttention::Selected, features: true, ..Needs::default() },
            tiling: Tiling { grid: GridRule::TwoByTwo, unpad: false },
            ..Card::default()
        }
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("important_ratio", self.important_ratio)]
    }
}

impl<B: VlmBackend> Pruner<B> for VisPruner {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let attention = cues.selected_attention(self.name())?;
        let features: Tensor<B, 3> = cues.features(self.name())?;
        let [_, patches, _] = features.dims();
        check_budget(budget, patches)?;
        let scores = host(attention.mean_dim(1));
        let important = (budget as f64 * self.important_ratio) as usize;
        let indices = scores
            .par_chunks(patches)
            .zip(cosines(features))
            .map(|(scores, similarity)| {
                let mut order = ranked(scores.iter().copied().map(f64::from));
                let rest = order.split_off(important);
                if budget > important {
                    order.extend(thin_out(rest, budget - important, &similarity, patches));
                }
                order
            })
            .collect();
        Ok(Keep::new(indices, budget))
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        attention(cues, self.name()).map(Some)
    }
}

/// Drops near-duplicates from `list` until `target` are left.
fn thin_out(mut list: Vec<usize>, target: usize, similarity: &[f64], patches: usize) -> Vec<usize> {
    while list.len() > target {
        let even: Vec<usize> = list.iter().copied().step_by(2).collect();
        let odd: Vec<usize> = list.iter().copied().skip(1).step_by(2).collect();
        let drop = ROUND.min(list.len() - target).min(even.len());
        let closest: Vec<f64> = even
            .iter()
            .map(|&a| odd.iter().map(|&b| similarity[a * patches + b]).fold(f64::NEG_INFINITY, f64::max))
            .collect();
        list = ranked(closest).into_iter().skip(drop).map(|i| even[i]).collect();
        list.extend(odd);
    }
    list
}
