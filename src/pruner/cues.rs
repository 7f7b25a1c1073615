//! What methods look at, and how they say what they need.

use burn::tensor::{Tensor, backend::Backend};

use crate::Error;

/// What a method reads; anything else is not computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Rows of the tower's attention.
    pub cls_attention: ClsAttention,
    /// Every patch's embedding, so that projecting cannot wait until patches were dropped.
    pub projected: bool,
    /// Embeddings of the text after the picture.
    pub prompt_embeds: bool,
}

/// Which layers' `[CLS]` attention a method reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClsAttention {
    /// None.
    #[default]
    None,
    /// That of the layer whose features are used.
    Selected,
    /// That of every layer, those above the selected one included.
    All,
}

/// What a method may look at.
#[derive(Clone, Debug, Default)]
pub struct Cues<B: Backend> {
    /// Tower features, `[crops, patches, hidden]`.
    pub features: Option<Tensor<B, 3>>,
    /// Projected features, `[crops, patches, hidden]`.
    pub projected: Option<Tensor<B, 3>>,
    /// `[CLS]` attention, `[layers, crops, heads, patches]`; one layer unless a method asks for more.
    pub cls_attention: Option<Tensor<B, 4>>,
    /// Embeddings of the text after the picture, `[text, hidden]`; `Some(None)` where there is no text.
    pub prompt_embeds: Option<Option<Tensor<B, 2>>>,
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

    /// The text after the picture, for `method`; `None` if there is none.
    ///
    /// # Errors
    /// When it was not looked up.
    pub fn prompt_embeds(&self, method: &'static str) -> Result<Option<Tensor<B, 2>>, Error> {
        let shape = "[text, hidden]";
        self.prompt_embeds.clone().ok_or(Error::MissingCue { method, cue: "prompt_embeds", shape })
    }

    /// Crops and patches, from whichever cue is there.
    pub fn grid(&self) -> Option<(usize, usize)> {
        let from_features = self.features.as_ref().map(|features| {
            let [crops, patches, _] = features.dims();
            (crops, patches)
        });
        from_features.or_else(|| {
            self.cls_attention.as_ref().map(|attention| {
                let [_, crops, _, patches] = attention.dims();
                (crops, patches)
            })
        })
    }
}
