//! TRIM: keep the patches that CLIP relates to the question, and one token for all the others.
//!
//! Idea: in CLIP's joint space, the patches whose product with the question stands out matter to it; the others become
//! one token, their mean, so that nothing is lost entirely.
//!
//! Paper: "Less is More: A Simple yet Effective Token Reduction Method for Efficient Multi-modal LLMs",
//! <https://arxiv.org/abs/2409.10994>. Official code: <https://github.com/FreedomIntelligence/TRIM> (`f5a232d5`),
//! `llava/model/multimodal_encoder/clip_encoder.py`, `token_reduction`. Checked: the rule was read there; the joint
//! space is the one that CDPruner's goldens check.
//!
//! Score: minus the product of a patch and the question, neither normalised (the official softmax over patches changes
//! no order).
//!
//! Deviations: `--tokens` says how many patches are kept, and the mean of the others is one token more, as there with a
//! fixed share; the paper's own rule (all outliers above the third quartile + 1.5 interquartile ranges) decides by
//! itself how many there are, and is not offered, because every method here keeps to a budget. Questions longer than 77
//! tokens are averaged over their segments (there: cut off); CLIP reads the question as CDPruner's evaluation gives it,
//! without the request for a single word (there: with it). When every patch is kept no token is added (there: a crash).
//! With LLaVA-NeXT every crop keeps its own tokens (there: only those of the whole image, the tiles' are lost). Ties go
//! to the first patch.
//!
//! Defaults: none; it has no parameters.

use burn::tensor::{DType, Tensor};
use secateur_backends::VlmBackend;

use super::{Blend, Card, Cues, Keep, Method, Needs, Pruner, top_k};
use crate::Error;

/// The TRIM method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct Trim;

impl Method for Trim {
    fn card(&self) -> Card {
        Card {
            name: "trim",
            idea: "keeps the patches that CLIP relates to the question, and the mean of the others",
            paper: "https://arxiv.org/abs/2409.10994",
            needs: Needs { joint: true, ..Needs::default() },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for Trim {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let score = self.ranking(cues)?;
        let [_, patches] = score.dims();
        let kept = top_k(score, budget)?;
        if budget == patches {
            return Ok(kept);
        }
        let rest = |kept: &Vec<usize>| {
            let others = (0..patches).filter(|patch| kept.binary_search(patch).is_err()).collect();
            vec![Blend { centre: None, others }]
        };
        let rests = kept.indices().iter().map(rest).collect();
        Ok(Keep::with_blends(kept.indices().to_vec(), rests, budget))
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        self.ranking(cues).map(Some)
    }
}

impl Trim {
    fn ranking<B: VlmBackend>(&self, cues: &Cues<B>) -> Result<Tensor<B, 2>, Error> {
        let image = cues.image_embeds(self.name())?.cast(DType::F32);
        let text = cues.text_embeds(self.name())?.cast(DType::F32).mean_dim(0);
        let [crops, patches, _] = image.dims();
        Ok((image * text.unsqueeze()).sum_dim(2).reshape([crops, patches]).neg())
    }
}
