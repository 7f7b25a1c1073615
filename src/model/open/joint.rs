//! CLIP's text side, for methods that compare patches with the question: the tower's own, OpenAI's, or what the user names.

use std::{collections::BTreeMap, path::PathBuf};

use burn::tensor::DType;
use secateur_backends::VlmBackend;
use secateur_weights::{Checkpoint, Dtypes, StoredTensor, WeightsError, find, load};

use super::{CONFIG, Opened};
use crate::{
    Error,
    checksum::{Part, checkpoint_sha256},
    model::{
        ClipJoint, ClipTextConfig,
        config::Layout,
        llava::Joint,
        names::{JOINT, POST_LAYERNORM},
    },
    text::{ClipTokenizer, TOKENIZER_JSON},
};

/// The CLIP checkpoint that every LLaVA's tower comes from, whose text side llava-hf checkpoints leave out.
const CLIP: &str = "openai/clip-vit-large-patch14-336";

impl Opened {
    /// The checksum of CLIP's text side.
    ///
    /// # Errors
    /// As [`Self::check_joint`], or when a file cannot be read.
    pub fn clip_sha256(&self) -> Result<String, Error> {
        let (folder, ..) = self.open_joint()?;
        checkpoint_sha256(&[Part { folder: &folder, small: &[CONFIG, TOKENIZER_JSON], weights: true }])
    }

    /// Checks that CLIP's text side is at hand, before any weight is read.
    ///
    /// # Errors
    /// When its folder, config or tokenizer is missing or of another kind.
    pub fn check_joint(&self) -> Result<(), Error> {
        self.open_joint().map(|_| ())
    }

    /// Folder, config and tokenizer of CLIP's text side.
    ///
    /// # Errors
    /// As [`Self::check_joint`].
    pub fn open_joint(&self) -> Result<(PathBuf, ClipTextConfig, ClipTokenizer), Error> {
        if self.layout == Layout::Video {
            let reason = "methods that compare patches with the question need the text side of CLIP, and LanguageBind's is \
                          another network";
            return Err(Error::config(&self.folder, reason));
        }
        let folder = match (&self.clip, self.towers.first()) {
            (Some(name), _) => find_clip(name)?,
            (None, Some(tower)) if !self.own_tower => tower.clone(),
            // The weights of such a tower are not needed for anything else.
            (None, Some(_)) => find(&self.tower_name, Some(&self.folder))?,
            (None, None) => find_clip(CLIP)?,
        };
        let config = ClipTextConfig::read(&folder.join(CONFIG), &self.config.vision)?;
        let (window, pooling) = (config.max_position_embeddings, config.pooling());
        let tokenizer = ClipTokenizer::read(&folder, window, config.vocab_size, pooling)?;
        Ok((folder, config, tokenizer))
    }

    /// CLIP's text side, in f32; the norm between tower and joint space is the tower's own, `norm`, where the checkpoint
    /// brought its tower along.
    pub(super) fn load_joint<B: VlmBackend>(
        &self,
        norm: BTreeMap<String, StoredTensor>,
        device: &B::Device,
    ) -> Result<(Joint<B>, BTreeMap<String, StoredTensor>), Error> {
        let (folder, config, tokenizer) = self.open_joint()?;
        let mut tensors = JOINT.apply(Checkpoint::open(&folder)?)?;
        for (path, tensor) in norm {
            tensors.insert(path.replace(POST_LAYERNORM, "post_layernorm."), tensor);
        }
        let vision = &self.config.vision;
        let clip = ClipJoint::<B>::new(vision.hidden_size, vision.layer_norm_eps, &config, device);
        let dtypes = Dtypes { weights: None, vectors: DType::F32 };
        let clip = load::<B, _>(clip, tensors.clone(), dtypes, |dtype| widest::<B>(dtype, device), &folder)?;
        Ok((Joint { clip, tokenizer }, tensors))
    }
}

/// The folder of the CLIP checkpoint `name`.
fn find_clip(name: &str) -> Result<PathBuf, WeightsError> {
    find(name, None).map_err(|error| match error {
        WeightsError::Hub { id, reason, .. } => {
            let advice = format!(
                "methods that read CLIP's text side need it: give its folder (--clip DIR), or fetch it where there is a \
                 network with `secateur pull {id}`"
            );
            WeightsError::Hub { id, reason, advice }
        }
        error => error,
    })
}

/// The dtype of the text side's weights: products with f32 activations take 16-bit weights only where
/// [`VlmBackend::activation_dtype`] says so.
fn widest<B: VlmBackend>(dtype: DType, device: &B::Device) -> DType {
    let kept = B::weight_dtype(dtype, device);
    if B::activation_dtype(kept) == DType::F32 { kept } else { DType::F32 }
}
