//! DATP: the `[CLS]` attention of all layers, corrected a little by what the question is about.
//!
//! Idea: later layers of the tower say more, so every layer's `[CLS]` attention counts, with weights that grow from
//! 0.5 to 1; a gate adds how strongly a projected patch answers to one of the text embeddings after the image.
//!
//! Paper: "DATP: Training-free Depth-awareness Token Pruning for Vision Language Model".
//! Official code: <https://github.com/lqxass/DATP> (`b038d82a`), `llava/model/llava_arch.py`, `encode_images` and
//! `cross_modal_attention_gating`.
//!
//! Score: 0.9 · z(Σ weight · attention) + 0.1 · z(max over text of softmax over text of patch · text), z-scores with
//! the unbiased deviation, at least 1e-9.
//!
//! Deviations: the image's place is read from the prompt (there: position 35, whatever the prompt); with no
//! text after the image the gate is left out (there: a crash); several crops and images work (there: a crash); ties
//! go to the first patch (there: open); a budget is asked for (there: 192 without one).
//!
//! Defaults: none; it has no parameters.

use burn::tensor::{DType, Tensor, activation, backend::Backend};
use secateur_backends::VlmBackend;

use super::{Card, ClsAttention, Cues, Keep, Method, Needs, Pruner, Tiling, top_k};
use crate::{Error, image::GridRule};

const VISION: f64 = 0.9;
const TEXT: f64 = 0.1;

/// The DATP method; it has no parameters.
#[derive(Clone, Copy, Debug)]
pub struct Datp;

impl Method for Datp {
    fn card(&self) -> Card {
        Card {
            name: "datp",
            idea: "keeps the patches that [CLS] attends to over all layers, with a gate for what the question names",
            paper: "https://github.com/lqxass/DATP",
            needs: Needs { cls_attention: ClsAttention::All, projected: true, prompt_embeds: true, ..Needs::default() },
            tiling: Tiling { grid: GridRule::Filled, unpad: false },
            ..Card::default()
        }
    }
}

impl<B: VlmBackend> Pruner<B> for Datp {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        top_k(self.ranking(cues)?, budget)
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        self.ranking(cues).map(Some)
    }
}

impl Datp {
    fn ranking<B: VlmBackend>(&self, cues: &Cues<B>) -> Result<Tensor<B, 2>, Error> {
        let attention = cues.cls_attention(self.name())?;
        let [layers, crops, _, patches] = attention.dims();
        let per_layer = attention.cast(DType::F32).mean_dim(2).reshape([layers, crops, patches]);
        let weights: Vec<f32> =
            (0..layers).map(|layer| 0.5 + 0.5 * layer as f32 / (layers.max(2) - 1) as f32).collect();
        let weights = Tensor::<B, 1>::from_floats(&weights[..], &per_layer.device()).reshape([layers, 1, 1]);
        let vision = z_score((per_layer * weights).sum_dim(0).reshape([crops, patches]));

        let projected = cues.projected(self.name())?;
        let text = cues.prompt_embeds(self.name())?;
        let score = match text {
            None => vision,
            Some(text) => {
                // [crops, patches, hidden] · [1, hidden, text]
                let likeness = B::matmul_f32(projected.cast(DType::F32), text.cast(DType::F32).transpose().unsqueeze());
                let gate = activation::softmax(likeness, 2).max_dim(2).reshape([crops, patches]);
                vision * VISION + z_score(gate) * TEXT
            }
        };
        Ok(score)
    }
}

/// Rows of `[crops, patches]` less their mean, over their unbiased standard deviation.
fn z_score<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let [_, patches] = x.dims();
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().square().sum_dim(1) / (patches.max(2) - 1) as f64;
    centred / variance.sqrt().clamp_min(1e-9)
}
