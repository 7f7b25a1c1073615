//! The space that CLIP's two sides share, in which a patch can be compared with a question.

use burn::{
    module::Module,
    tensor::{DType, Tensor, backend::Backend},
};
use secateur_backends::VlmBackend;

use super::{ClipText, ClipTextConfig};
use crate::{
    Error,
    model::{Build, LayerNorm, Linear},
    text::{ClipTokenizer, Segment},
};

/// CLIP's text side with its tokenizer, for methods that compare the image with the question.
pub struct Joint<B: Backend> {
    pub(in crate::model) clip: ClipJoint<B>,
    pub(in crate::model) tokenizer: ClipTokenizer,
}

impl<B: VlmBackend> Joint<B> {
    /// Brings tower features `[crops, patches, vision]` and a question into the joint space: `[crops, patches, joint]` and `[segments, joint]`.
    ///
    /// # Errors
    /// When the tokenizer cannot read the question.
    pub(in crate::model) fn compare(
        &self,
        features: Tensor<B, 3>,
        question: &str,
    ) -> Result<(Tensor<B, 3>, Tensor<B, 2>), Error> {
        let segments = self.tokenizer.segments(question)?;
        Ok((self.clip.image_embeds(features), self.clip.text_embeds(&segments)))
    }
}

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
    /// An unfilled text side, for a vision tower of width `vision` with `eps` in its norms.
    pub fn new(vision: usize, eps: f64, text: &ClipTextConfig, device: &B::Device) -> Self {
        let build = Build::exact(device);
        Self {
            post_layernorm: LayerNorm::new(vision, eps, device),
            visual_projection: build.linear(vision, text.projection_dim, false),
            text_model: ClipText::new(text, build),
            text_projection: build.linear(text.hidden_size, text.projection_dim, false),
        }
    }

    /// Projects tower features `[crops, patches, vision]` into the joint space, `[crops, patches, joint]`, not normalised.
    pub fn image_embeds(&self, features: Tensor<B, 3>) -> Tensor<B, 3> {
        self.visual_projection.forward(self.post_layernorm.forward(features.cast(DType::F32)))
    }

    /// Embeds segments of a question in the joint space, `[segments, joint]`, not normalised.
    pub fn text_embeds(&self, segments: &[Segment]) -> Tensor<B, 2> {
        self.text_projection.forward(self.text_model.pooled(segments))
    }

    /// The text side.
    pub fn text_model(&self) -> &ClipText<B> {
        &self.text_model
    }
}
