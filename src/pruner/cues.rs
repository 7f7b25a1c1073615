//! The cues that methods read, and how a method says which it needs.

use burn::tensor::{Tensor, backend::Backend};

use crate::{Error, image::Grid};

/// The cues that a method reads; all others are not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The layers whose `[CLS]` attention in the tower is read.
    pub cls_attention: ClsAttention,
    /// The tower's features; they are always there, this only says whether the method looks at them.
    pub features: bool,
    /// The projected features of all patches; projection then cannot wait until patches are dropped.
    pub projected: bool,
    /// Embeddings of the text after the image.
    pub prompt_embeds: bool,
    /// Tokens and question in a space where they can be compared: CLIP's joint space, or the decoder's embeddings where the tower has no text side.
    pub relevance: bool,
    /// Patches and question in the joint space of the tower and its text side, and in no other.
    pub joint: bool,
    /// The selected layer's keys.
    pub keys: bool,
    /// A number that depends on the image.
    pub fingerprint: bool,
}

impl Needs {
    /// Adds the cues that `other` needs.
    pub fn and(self, other: Self) -> Self {
        Self {
            cls_attention: self.cls_attention.max(other.cls_attention),
            features: self.features || other.features,
            projected: self.projected || other.projected,
            prompt_embeds: self.prompt_embeds || other.prompt_embeds,
            relevance: self.relevance || other.relevance,
            joint: self.joint || other.joint,
            keys: self.keys || other.keys,
            fingerprint: self.fingerprint || other.fingerprint,
        }
    }

    /// Whether tokens are compared with the question.
    pub fn reads_question(&self) -> bool {
        self.relevance || self.joint
    }

    /// The names of these cues, for people.
    pub fn names(&self) -> Vec<&'static str> {
        let attention = match self.cls_attention {
            ClsAttention::None => None,
            ClsAttention::Selected => Some("[CLS] attention"),
            ClsAttention::All => Some("[CLS] attention of all layers"),
        };
        let others = [
            (self.features, "tower features"),
            (self.projected, "projected features"),
            (self.prompt_embeds, "prompt embeddings"),
            (self.reads_question(), "CLIP text"),
            (self.keys, "tower keys"),
        ];
        attention.into_iter().chain(others.into_iter().filter(|(needed, _)| *needed).map(|(_, name)| name)).collect()
    }
}

/// The tower layers whose `[CLS]` attention a method reads. A greater value includes the smaller ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClsAttention {
    /// No layer.
    #[default]
    None,
    /// The layer whose features are used.
    Selected,
    /// Every layer, those above the selected one included.
    All,
}

/// The rule by which a token's likeness to the question tells how much it matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Relevance {
    /// In CLIP's joint space, tokens *unlike* the text as a whole carry what it asks about; all crops of an image are scaled together.
    #[default]
    Unlike,
    /// Among the decoder's embeddings, tokens like the text matter; each item is scaled by itself.
    Like,
}

/// The cues that a method may read; a cue that was not computed is `None`.
#[derive(Clone, Debug, Default)]
pub struct Cues<B: Backend> {
    /// Tower features, `[crops, patches, hidden]`.
    pub features: Option<Tensor<B, 3>>,
    /// Projected features, `[crops, patches, hidden]`.
    pub projected: Option<Tensor<B, 3>>,
    /// `[CLS]` attention, `[layers, crops, heads, patches]`; one layer unless a method asks for more. In a tower without `[CLS]` it is the attention
    /// that each token receives from all others, averaged over heads already.
    pub cls_attention: Option<Tensor<B, 4>>,
    /// Embeddings of the text after the image, `[text, hidden]`; `Some(None)` where there is no text.
    pub prompt_embeds: Option<Option<Tensor<B, 2>>>,
    /// Tokens in the space in which the question is compared with them, `[crops, patches, joint]`, not normalised.
    pub image_embeds: Option<Tensor<B, 3>>,
    /// The question in that space, `[segments, joint]`, not normalised.
    pub text_embeds: Option<Tensor<B, 2>>,
    /// The rule by which a token's likeness to the question tells how much it matters.
    pub relevance: Relevance,
    /// The selected layer's keys, averaged over heads, `[crops, patches, head_dim]`.
    pub keys: Option<Tensor<B, 3>>,
    /// The layout of an item's tokens in rows and columns; a square if it is `None`.
    pub layout: Option<Grid>,
    /// A number that depends on the image, for random choices that differ between images; 0 unless asked for.
    pub fingerprint: u64,
}

impl<B: Backend> Cues<B> {
    /// The `[CLS]` attention, for `method`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn cls_attention(&self, method: &'static str) -> Result<Tensor<B, 4>, Error> {
        let shape = "[layers, crops, heads, patches]";
        self.cls_attention.clone().ok_or(Error::MissingCue { method, cue: "cls_attention", shape })
    }

    /// The `[CLS]` attention of the selected layer, `[crops, heads, patches]`, for `method`.
    ///
    /// # Errors
    /// When it is not there, or there are several layers.
    pub fn selected_attention(&self, method: &'static str) -> Result<Tensor<B, 3>, Error> {
        let attention = self.cls_attention(method)?;
        match attention.dims() {
            [1, crops, heads, patches] => Ok(attention.reshape([crops, heads, patches])),
            [found, ..] => Err(Error::AttentionLayers { method, expected: 1, found }),
        }
    }

    /// The tower features, for `method`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn features(&self, method: &'static str) -> Result<Tensor<B, 3>, Error> {
        let shape = "[crops, patches, hidden]";
        self.features.clone().ok_or(Error::MissingCue { method, cue: "features", shape })
    }

    /// The projected features, for `method`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn projected(&self, method: &'static str) -> Result<Tensor<B, 3>, Error> {
        let shape = "[crops, patches, hidden]";
        self.projected.clone().ok_or(Error::MissingCue { method, cue: "projected", shape })
    }

    /// Embeddings of the text after the image, for `method`; `None` if there is no text.
    ///
    /// # Errors
    /// When it was not looked up.
    pub fn prompt_embeds(&self, method: &'static str) -> Result<Option<Tensor<B, 2>>, Error> {
        let shape = "[text, hidden]";
        self.prompt_embeds.clone().ok_or(Error::MissingCue { method, cue: "prompt_embeds", shape })
    }

    /// Tokens in the space in which the question is compared with them, for `method`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn image_embeds(&self, method: &'static str) -> Result<Tensor<B, 3>, Error> {
        let shape = "[crops, patches, joint]";
        self.image_embeds.clone().ok_or(Error::MissingCue { method, cue: "image_embeds", shape })
    }

    /// The question in the space of [`Self::image_embeds`], for `method`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn text_embeds(&self, method: &'static str) -> Result<Tensor<B, 2>, Error> {
        let shape = "[segments, joint]";
        self.text_embeds.clone().ok_or(Error::MissingCue { method, cue: "text_embeds", shape })
    }

    /// The selected layer's keys, for `method`.
    ///
    /// # Errors
    /// When they are not there.
    pub fn keys(&self, method: &'static str) -> Result<Tensor<B, 3>, Error> {
        let shape = "[crops, patches, head_dim]";
        self.keys.clone().ok_or(Error::MissingCue { method, cue: "keys", shape })
    }

    /// The numbers of crops and patches, from any cue that is there, for `method`.
    ///
    /// # Errors
    /// When there is none.
    pub fn grid(&self, method: &'static str) -> Result<(usize, usize), Error> {
        let cues = [&self.features, &self.projected, &self.image_embeds, &self.keys];
        let three = cues.into_iter().flatten().next().map(|cue| (cue.dims()[0], cue.dims()[1]));
        let four = self.cls_attention.as_ref().map(|attention| (attention.dims()[1], attention.dims()[3]));
        let shape = "[crops, patches, hidden]";
        three.or(four).ok_or(Error::MissingCue { method, cue: "features", shape })
    }
}
