//! FasterVLM: keep the patches that the vision tower's `[CLS]` token attends to.
//!
//! Idea: text-to-image attention inside the decoder is noisy; the `[CLS]` attention of the tower, averaged over heads,
//! ranks patches better, and is known before the decoder starts.
//!
//! Paper: "`[CLS]` Attention is All You Need for Training-Free Visual Token Pruning",
//! <https://arxiv.org/abs/2412.01818v1>. Official code: <https://github.com/Theia-4869/FasterVLM> (`f5d5f12`),
//! `llava/model/llava_arch.py`, `encode_images`.
//!
//! Deviations: ties go to the first patch (the official `topk` leaves them open); a budget above the patch count is
//! an error with a sentence (there: a crash in `topk`); only the kept tokens are projected (there: all; same numbers).
//!
//! Defaults: attention of the layer whose features are used (−2 in LLaVA), mean over heads, original order.

use burn::tensor::{Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Card, ClsAttention, Cues, Keep, Method, Needs, Pruner, Tiling, top_k};
use crate::{Error, image::GridRule};

/// The FasterVLM method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct FasterVlm;

impl Method for FasterVlm {
    fn card(&self) -> Card {
        Card {
            name: "fastervlm",
            idea: "keeps the patches that the tower's [CLS] token attends to",
            paper: "https://arxiv.org/abs/2412.01818v1",
            needs: Needs { cls_attention: ClsAttention::Selected, ..Needs::default() },
            tiling: Tiling { grid: GridRule::Filled, unpad: false },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for FasterVlm {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        top_k(attention(cues, self.name())?, budget)
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        attention(cues, self.name()).map(Some)
    }
}

/// The attention of `[CLS]` to each patch in the selected layer, averaged over heads: `[crops, patches]`.
pub(super) fn attention<B: Backend>(cues: &Cues<B>, method: &'static str) -> Result<Tensor<B, 2>, Error> {
    let attention = cues.selected_attention(method)?;
    let [crops, _, patches] = attention.dims();
    Ok(attention.mean_dim(1).reshape([crops, patches]))
}
