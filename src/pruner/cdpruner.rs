//! CDPruner: keep patches that differ from each other and matter to the question.
//!
//! Idea: a determinantal point process prefers sets of patches whose projected features are unlike each other; its
//! kernel is weighted with every patch's relevance to the question, and the best set is searched greedily.
//!
//! Paper: "Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
//! <https://arxiv.org/abs/2506.10967>. Official code: <https://github.com/Theia-4869/CDPruner> (`9541616c`),
//! `llava/model/llava_arch.py`, `encode_images`, and `multimodal_encoder/clip_encoder.py`.
//!
//! Similarity: cosine of projected features. Relevance: minus the cosine of a patch and the question in CLIP's joint
//! space (patches that look *unlike* the text as a whole carry what it asks about), averaged over the question's
//! segments of 77 tokens, scaled to 0..1 over all crops of the image together, 1e-6 added to the numerator. Kernel:
//! relevance · similarity · relevance. With `theta`, relevance becomes `exp(theta / (2 − 2·theta) · relevance)`, which
//! the official code has as a comment.
//!
//! Deviations: a feature or an embedding of length zero is similar to nothing, and constant relevance is 1 everywhere
//! (there: NaN, and fewer tokens than asked for); a patch whose features the chosen ones span already (less than 1e-5
//! of its own length is left) is taken only when nothing else is left, by relevance (there: by rounding noise, or NaN
//! and fewer tokens); the kernel is never rounded to f32, see [`secateur_backends::dpp`] (there: it is, and rounding
//! decides the choice in flat areas of an image); ties go to the first patch; several images in a prompt work (there: a crash).
//!
//! Features and embeddings are made unit vectors in f32, also where the model computes in 16 bits (there: in 16).
//!
//! Defaults: no `theta`, as the official code runs.

use burn::tensor::{DType, Tensor};
use secateur_backends::{VlmBackend, operations::greedy_dpp};

use super::{Card, Cues, Keep, Method, Needs, Pruner, Tiling, check_budget};
use crate::{Error, image::GridRule, tensor::host};

/// The largest `theta`: above, the factors of patches that matter little are too small for f32, and no longer differ.
pub const MAX_THETA: f64 = 0.98;

/// The CDPruner method.
#[derive(Clone, Copy, Debug)]
pub struct CdPruner {
    /// The weight of the question, from 0 to [`MAX_THETA`]; `None` takes relevance as it is.
    pub theta: Option<f64>,
}

impl Method for CdPruner {
    fn card(&self) -> Card {
        Card {
            name: "cdpruner",
            idea: "keeps patches that differ from each other, weighted by what the question is about",
            paper: "https://arxiv.org/abs/2506.10967",
            needs: Needs { projected: true, joint: true, ..Needs::default() },
            tiling: Tiling { grid: GridRule::TwoByTwo, unpad: false },
            ..Card::default()
        }
    }

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        self.theta.map(|theta| ("theta", theta)).into_iter().collect()
    }
}

impl<B: VlmBackend> Pruner<B> for CdPruner {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let projected = cues.projected(self.name())?;
        let [crops, patches, _] = projected.dims();
        check_budget(budget, patches)?;
        let features = unit(projected.cast(DType::F32));
        let relevance = relevance(cues.image_embeds(self.name())?, cues.text_embeds(self.name())?);
        let relevance = match self.theta {
            // The largest is subtracted so that nothing overflows: a common factor changes no choice.
            Some(theta) => {
                let below = relevance.clone() - relevance.max().unsqueeze();
                (below * (theta / (2.0 - 2.0 * theta))).exp()
            }
            None => relevance,
        };
        let chosen = greedy_dpp(features * relevance.reshape([crops, patches, 1]), budget);
        let chosen = host(chosen.float());
        let crops = chosen.chunks(budget).map(|crop| crop.iter().map(|&patch| patch as usize).collect());
        Ok(Keep::new(crops.collect(), budget))
    }

    fn score(&self, cues: &Cues<B>) -> Result<Option<Tensor<B, 2>>, Error> {
        Ok(Some(relevance(cues.image_embeds(self.name())?, cues.text_embeds(self.name())?)))
    }
}

/// The relevance of each patch to the question, `[crops, patches]`, in 0..=1 but for the 1e-6.
pub(crate) fn relevance<B: VlmBackend>(image: Tensor<B, 3>, text: Tensor<B, 2>) -> Tensor<B, 2> {
    let [crops, patches, _] = image.dims();
    let (image, text) = (unit(image.cast(DType::F32)), unit(text.cast(DType::F32)));
    // The mean of the cosines with each segment is the product with the segments' mean.
    let likeness = (image * text.mean_dim(0).unsqueeze()).sum_dim(2);
    let relevance = likeness.neg().reshape([crops, patches]);
    let (low, high) = (relevance.clone().min(), relevance.clone().max());
    let range = (high - low.clone()).reshape([1, 1]).expand([crops, patches]);
    let constant = range.clone().lower_equal_elem(0.0);
    let scaled = (relevance - low.reshape([1, 1]) + 1e-6) / range.mask_fill(constant.clone(), 1.0);
    scaled.mask_fill(constant, 1.0)
}

/// Scales every row to length 1; rows of length 0 stay so.
fn unit<B: VlmBackend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let norm = x.clone().square().sum_dim(D - 1).sqrt();
    let zero = norm.clone().lower_equal_elem(0.0);
    x / norm.mask_fill(zero, 1.0)
}
