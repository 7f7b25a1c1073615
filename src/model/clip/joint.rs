//! The space that CLIP's two sides share, in which a patch can be compared with a question.

use burn::{
    module::Module,
    tensor::{DType, Tensor, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::ClipText;
use crate::{
    model::{ClipTextConfig, LayerNorm, Linear},
    text::Segment,
};

/// The text side of CLIP, and the way from both sides into their joint space. Everything runs in f32.
///
/// CLIP itself projects the `[CLS]` token of the last layer; here, as in CDPruner and TRIM, patches of the layer that
/// LLaVA reads take the same way.
#[derive(Module, Debug)]
pub struct ClipJoint<B: Backend> {
    post_layernorm: LayerNorm<B>,
    visual_projection: Linear<B>,
    text_model: ClipText<B>,
    text_projection: Linear<B>,
}

impl<B: VlmBackend> ClipJoint<B> {
    /// Unfilled, for a vision tower of width `vision` with `eps` in its norms.
    pub fn new(vision: usize, eps: f64, text: &ClipTextConfig, device: &B::Device) -> Self {
        Self {
            post_layernorm: LayerNorm::new(vision, eps, device),
            visual_projection: Linear::new(vision, text.projection_dim, false, device),
            text_model: ClipText::new(text, device),
            text_projection: Linear::new(text.hidden_size, text.projection_dim, false, device),
        }
    }

    /// Tower features `[crops, patches, vision]` → `[crops, patches, joint]`, not normalised.
    pub fn image_embeds(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.visual_projection.forward(self.post_layernorm.forward(features.cast(DType::F32)))
    }

    /// Segments of a question → `[segments, joint]`, not normalised.
    pub fn text_embeds(&self, segments: &[Segment]) -> Tensor<B, 2> {
        self.text_projection.forward(self.text_model.pooled(segments))
    }

    /// The text side.
    pub fn text_model(&self) -> &ClipText<B> {
        &self.text_model
    }
}
