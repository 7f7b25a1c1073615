//! SCOPE: keep patches that cover all others, as far as the tower attends to them.
//!
//! Idea: a patch covers another as far as their features are alike. Greedily, the patch is taken whose cover adds most to that of the chosen ones, times the
//! attention that it gets, so that the choice is both salient and complete.
//!
//! Paper: "SCOPE: Saliency-Coverage Oriented Token Pruning for Efficient Multimodel LLMs", NeurIPS 2025. Official code:
//! <https://github.com/kinredon/SCOPE>. Checked: against an independent transcription of the rule in float64; the official code was neither read nor run.
//!
//! Similarity: cosine of tower features, S. With m = 0 for every patch at first, the gain of patch j is the sum over all patches i of max(0, S_ij − m_i), times
//! j's `[CLS]` attention, averaged over heads (the official sum over heads changes no order). The largest gain is taken, and m becomes the larger of m and S_ij.
//! The question is not read.
//!
//! Deviations: similarities and gains are summed in f64; a feature of length zero is like nothing (there: NaN); equal gains go to the first patch.
//!
//! Defaults: attention to the power of α = 1; it has no parameters.

use std::{cmp::Ordering, collections::BinaryHeap};

use burn::tensor::Tensor;
use rayon::prelude::*;
use secateur_backends::VlmBackend;

use super::{Card, ClsAttention, Cues, Keep, Method, Needs, Pruner, check_budget, cosines, fastervlm::attention};
use crate::{Error, tensor::host};

/// The SCOPE method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct Scope;

impl Method for Scope {
    fn card(&self) -> Card {
        Card {
            name: "scope",
            idea: "keeps the patches whose likeness covers all others, weighted by [CLS] attention",
            paper: "https://github.com/kinredon/SCOPE",
            needs: Needs { cls_attention: ClsAttention::Selected, features: true, ..Needs::default() },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for Scope {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let attention = host(attention(cues, self.name())?);
        let features = cues.features(self.name())?;
        let [_, patches, _] = features.dims();
        check_budget(budget, patches)?;
        let crops = attention.par_chunks(patches).zip(cosines(features));
        Ok(Keep::new(crops.map(|(attention, similarity)| cover(attention, &similarity, budget)).collect(), budget))
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        attention(cues, self.name()).map(Some)
    }
}

/// Chooses `budget` patches, each with the largest gain. Gains never grow while more is covered, so only those that were the largest before are counted anew.
fn cover(attention: &[f32], similarity: &[f64], budget: usize) -> Vec<usize> {
    let patches = attention.len();
    let mut covered = vec![0.0f64; patches];
    let gain = |j: usize, covered: &[f64]| {
        // Cosines are the same both ways, and a row lies in one stream.
        let row = similarity[j * patches..][..patches].iter().zip(covered);
        let added: f64 = row.map(|(s, m)| (s - m).max(0.0)).sum();
        let gain = added * f64::from(attention[j]);
        // Gains that are no numbers rank last.
        if gain.is_nan() { f64::NEG_INFINITY } else { gain + 0.0 }
    };
    let mut open: BinaryHeap<Open> =
        (0..patches).map(|patch| Open { gain: gain(patch, &covered), patch, chosen: 0 }).collect();
    let mut chosen = Vec::with_capacity(budget);
    while chosen.len() < budget {
        let Some(best) = open.pop() else { break };
        if best.chosen < chosen.len() {
            open.push(Open { gain: gain(best.patch, &covered), chosen: chosen.len(), ..best });
            continue;
        }
        let row = &similarity[best.patch * patches..][..patches];
        covered.iter_mut().zip(row).for_each(|(m, s)| *m = m.max(*s));
        chosen.push(best.patch);
    }
    chosen
}

/// A patch that is not chosen, with its gain when so many were chosen; the largest gain comes first, and of equals the first patch.
#[derive(Clone, Copy, Debug)]
struct Open {
    gain: f64,
    patch: usize,
    chosen: usize,
}

impl Ord for Open {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain.total_cmp(&other.gain).then(other.patch.cmp(&self.patch))
    }
}

impl PartialOrd for Open {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Open {}
