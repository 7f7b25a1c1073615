//! FastV: after a few layers of the decoder, keep the visual tokens that the end of the prompt attends to.
//!
//! Idea: visual tokens are attended to in the first layers and hardly after them, so most can go from layer K on.
//!
//! Paper: "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for Large Vision-Language
//! Models", <https://arxiv.org/abs/2403.06764>. Official code: <https://github.com/pkunlp-icler/FastV> (`d1659729`),
//! `fastv` in the vendored `LlamaModel.forward`, its variant that drops tokens.
//!
//! Score: the attention of layer K−1 (counted from 0), averaged over heads, in the row of the prompt's last token. Kept
//! tokens keep their positions. The first K layers run on, and cache, all tokens.
//!
//! Deviations: the span of the image is read from the prompt (there: 35 or 36 and 576, whatever the prompt). Tokens
//! are chosen once, from the prompt, and the layers above K cache only the kept tokens (there: with a cache it crashes
//! or doubles a layer's keys, without one it chooses again at every new token). With several images or crops the
//! budgets are added up and spent on all visual tokens together, LLaVA-NeXT's newline tokens and `[CLS]` tokens of
//! frames among them, so that a budget of all patches keeps a few tokens less than there are. Ties go to the first
//! token. K = 0, which has no attention to go by, is refused (there: random, or a crash).
//!
//! Defaults: K = 2 (`--fastv-layer`).

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{Card, LayerPruner, Method, Place, Tiling, top_k};
use crate::{Error, image::GridRule};

/// The FastV method.
#[derive(Clone, Copy, Debug)]
pub struct FastV {
    /// The number of layers that see all tokens, at least 1.
    pub layer: usize,
}

impl Method for FastV {
    fn card(&self) -> Card {
        Card {
            name: "fastv",
            idea: "after a few layers keeps the visual tokens that the prompt's last token attends to",
            paper: "https://arxiv.org/abs/2403.06764",
            place: Place::Llm,
            // LLaVA's own way: FastV takes the whole sequence as LLaVA makes it.
            tiling: Tiling { grid: GridRule::Llava, unpad: true },
            ..Card::default()
        }
    }

    fn cut_layer(&self) -> Option<usize> {
        Some(self.layer)
    }

    fn keeps_class(&self) -> bool {
        true
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("fastv_layer", self.layer as f64)]
    }
}

impl<B: VlmBackend> LayerPruner<B> for FastV {
    fn layer(&self) -> usize {
        self.layer
    }

    fn keep(&self, attention: Tensor<B, 2>, budget: usize) -> Result<Vec<usize>, Error> {
        Ok(top_k(attention.mean_dim(0), budget)?.indices()[0].clone())
    }
}
