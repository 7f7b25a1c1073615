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
//! In towers without a text side, relevance is *plus* the mean cosine of a token's embedding with the decoder's embeddings of the user's own text, scaled
//! in each image or temporal slice by itself: the minus belongs to CLIP, say the authors (issues 4, 7 and 9 of their repository). There is no official
//! code for such towers.
//!
//! Features and embeddings are made unit vectors in f32, also where the model computes in 16 bits (there: in 16).
//!
//! Defaults: no `theta`, as the official code runs.

use burn::tensor::{DType, Tensor};
use secateur_backends::{VlmBackend, operations::greedy_dpp};

use super::{Card, Cues, Keep, Method, Needs, Pruner, Relevance, Tiling, check_budget};
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
            needs: Needs { projected: true, relevance: true, ..Needs::default() },
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
        let relevance = of_question(cues)?;
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
        of_question(cues).map(Some)
    }
}

/// The relevance of each token to the question by the cues' own rule, `[crops, patches]`.
fn of_question<B: VlmBackend>(cues: &Cues<B>) -> Result<Tensor<B, 2>, Error> {
    const NAME: &str = "cdpruner";
    Ok(relevance(cues.image_embeds(NAME)?, cues.text_embeds(NAME)?, cues.relevance))
}

/// The relevance of each patch to the question, `[crops, patches]`, in 0..=1 but for the 1e-6. To a question without words all patches matter alike.
pub(crate) fn relevance<B: VlmBackend>(image: Tensor<B, 3>, text: Tensor<B, 2>, rule: Relevance) -> Tensor<B, 2> {
    let [crops, patches, _] = image.dims();
    let (image, text) = (unit(image.cast(DType::F32)), unit(text.cast(DType::F32)));
    // The mean of the cosines with each segment is the product with the segments' mean.
    let likeness = (image * text.mean_dim(0).unsqueeze()).sum_dim(2).reshape([crops, patches]);
    match rule {
        Relevance::Unlike => scaled(likeness.neg().reshape([1, crops * patches])).reshape([crops, patches]),
        Relevance::Like => scaled(likeness),
    }
}

/// Scales each row to 0..=1, with 1e-6 added before the division; a constant row becomes 1 everywhere.
fn scaled<B: VlmBackend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let shape = rows.dims();
    let (low, high) = (rows.clone().min_dim(1), rows.clone().max_dim(1));
    let range = (high - low.clone()).expand(shape);
    let constant = range.clone().lower_equal_elem(0.0);
    let scaled = (rows - low + 1e-6) / range.mask_fill(constant.clone(), 1.0);
    scaled.mask_fill(constant, 1.0)
}

/// Scales every row to length 1; rows of length 0 stay so.
fn unit<B: VlmBackend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let norm = x.clone().square().sum_dim(D - 1).sqrt();
    let zero = norm.clone().lower_equal_elem(0.0);
    x / norm.mask_fill(zero, 1.0)
}
