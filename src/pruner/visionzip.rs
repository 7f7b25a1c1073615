//! VisionZip: keep what the tower attends to, and merge the rest into a few tokens.
//!
//! Idea: most of the budget goes to *dominant* patches, by `[CLS]` attention. Of the others, evenly spaced ones become
//! the centres of *contextual* tokens; each of the rest joins the centre whose key is most like its own, and a
//! contextual token is its centre plus the mean of those that joined it.
//!
//! Paper: "VisionZip: Longer is Better but Not Necessary in Vision Language Models",
//! <https://arxiv.org/abs/2412.04467>. Official code: <https://github.com/dvlab-research/VisionZip> (`3151f6df`),
//! `visionzip/clip_encoder.py`. Checked: against this project's own float64 transcription of that rule; the official
//! code was read, not run.
//!
//! Likeness: cosine of the selected layer's keys, averaged over heads. Dominant patches come first in their order, then
//! the contextual tokens; in LLaVA-NeXT's grid part the contextual tokens of all tiles follow the grid.
//!
//! Deviations: `[CLS]` itself is not kept (there: it takes one of the dominant places); its place goes to one more
//! patch. Ties go to the first patch or centre; keys of length zero are like nothing (there: NaN).
//!
//! Defaults: 10 of 64 tokens are contextual, as in the official settings (54 + 10, 108 + 20, 162 + 30), rounded down.

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{Blend, Card, ClsAttention, Cues, Keep, Method, Needs, Pruner, check_budget, fastervlm::attention, ranked};
use crate::{Error, tensor::host};

/// The VisionZip method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct VisionZip;

impl Method for VisionZip {
    fn card(&self) -> Card {
        Card {
            name: "visionzip",
            idea: "keeps the patches that [CLS] attends to, and merges the others into a few tokens",
            paper: "https://arxiv.org/abs/2412.04467",
            needs: Needs { cls_attention: ClsAttention::Selected, keys: true, ..Needs::default() },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for VisionZip {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let attention = cues.selected_attention(self.name())?;
        let keys = cues.keys(self.name())?;
        let [_, patches, width] = keys.dims();
        check_budget(budget, patches)?;
        if budget == patches {
            return Ok(Keep::new(vec![(0..patches).collect(); keys.dims()[0]], budget));
        }
        let contextual = budget * 10 / 64;
        let (scores, keys) = (host(attention.mean_dim(1)), host(keys));
        let (mut plain, mut blends) = (Vec::new(), Vec::new());
        for (scores, keys) in scores.chunks(patches).zip(keys.chunks(patches * width)) {
            let mut dominant = ranked(scores.iter().copied().map(f64::from));
            let mut rest = dominant.split_off(budget - contextual);
            rest.sort_unstable();
            plain.push(dominant);
            blends.push(merge(&rest, contextual, keys, width));
        }
        Ok(Keep::with_blends(plain, blends, budget))
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        attention(cues, self.name()).map(Some)
    }
}

/// Merges the patches of `rest` into `count` tokens.
fn merge(rest: &[usize], count: usize, keys: &[f32], width: usize) -> Vec<Blend> {
    if count == 0 {
        return Vec::new();
    }
    let key = |patch: usize| -> Vec<f64> {
        let row: Vec<f64> = keys[patch * width..][..width].iter().map(|&value| f64::from(value)).collect();
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| if norm > 0.0 { value / norm } else { 0.0 }).collect()
    };
    let step = (rest.len() / count).max(1);
    let is_centre = |i: usize| i.is_multiple_of(step) && i / step < count;
    let mut tokens: Vec<Blend> =
        (0..count).map(|i| Blend { centre: Some(rest[i * step]), others: Vec::new() }).collect();
    let centres: Vec<Vec<f64>> = (0..count).map(|i| key(rest[i * step])).collect();
    for (_, &patch) in rest.iter().enumerate().filter(|(i, _)| !is_centre(*i)) {
        let own = key(patch);
        let likeness = centres.iter().map(|centre| centre.iter().zip(&own).map(|(a, b)| a * b).sum::<f64>());
        let nearest = ranked(likeness)[0];
        tokens[nearest].others.push(patch);
    }
    tokens
}
