//! CLIP's text side, for methods that compare patches with the question: the tower's own, OpenAI's, or that of the checkpoint that the user names.

use std::path::{Path, PathBuf};

use secateur_weights::{WeightsError, find};

use super::{ClipTextConfig, ClipVisionConfig};
use crate::{Error, model::config::CONFIG, text::ClipTokenizer};

/// The CLIP checkpoint that every LLaVA's tower comes from, whose text side llava-hf checkpoints leave out.
pub(in crate::model) const CLIP: &str = "openai/clip-vit-large-patch14-336";

/// The text side of a CLIP checkpoint, of which no weight has been touched.
pub struct TextSide {
    /// The folder of the text side's checkpoint.
    pub folder: PathBuf,
    /// The shape of the text side.
    pub config: ClipTextConfig,
    /// The tokenizer of the text side.
    pub tokenizer: ClipTokenizer,
}

impl TextSide {
    /// Opens the checkpoint `clip`, or the one that LLaVA's towers come from, for a tower of the shape `vision`.
    ///
    /// # Errors
    /// When its folder, config or tokenizer is missing or of another kind.
    pub(in crate::model) fn open(clip: Option<&str>, vision: &ClipVisionConfig) -> Result<Self, Error> {
        Self::open_folder(find_clip(clip.unwrap_or(CLIP))?, vision)
    }

    /// Opens the checkpoint that a config calls `name`, whose folder may be beside `folder`; the weights of that checkpoint are needed for nothing
    /// else.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(in crate::model) fn open_named(name: &str, folder: &Path, vision: &ClipVisionConfig) -> Result<Self, Error> {
        Self::open_folder(find(name, Some(folder))?, vision)
    }

    /// Opens the checkpoint in `folder`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(in crate::model) fn open_folder(folder: PathBuf, vision: &ClipVisionConfig) -> Result<Self, Error> {
        let config = ClipTextConfig::read(&folder.join(CONFIG), vision)?;
        let (window, pooling) = (config.max_position_embeddings, config.pooling());
        let tokenizer = ClipTokenizer::read(&folder, window, config.vocab_size, pooling)?;
        Ok(Self { folder, config, tokenizer })
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
