//! The CLIP tokenizer, and CDPruner's cut of long questions into segments.

use std::path::{Path, PathBuf};

use tokenizers::{Model, ModelWrapper, Tokenizer, pre_tokenizers::byte_level::ByteLevel};

use super::TOKENIZER_JSON;
use crate::{Error, unwind::guarded};

/// A tokenizer with the ids of `CLIPTokenizerFast`.
pub struct ClipTokenizer {
    /// The file that the tokenizer was read from.
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Number of tokens that the text tower reads at once.
    window: usize,
    pooling: Pooling,
}

/// The rule that picks the token that stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The token with the largest id: transformers' choice where the config says that the end token is 2, as OpenAI's checkpoints do, although their
    /// end token is the last of the vocabulary.
    LargestId,
    /// The first token with this id.
    End(u32),
}

/// A part of a text, as long as the text tower reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Token ids, the last segment filled up with zeros.
    pub ids: Vec<u32>,
    /// The position of the token that stands for the segment.
    pub pool: usize,
}

impl ClipTokenizer {
    /// Reads `tokenizer.json` of a CLIP checkpoint whose text tower reads `window` tokens at once.
    ///
    /// # Errors
    /// When the file is missing, damaged, or has more tokens than the tower's `vocabulary`.
    pub fn read(folder: &Path, window: usize, vocabulary: usize, pooling: Pooling) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER_JSON);
        let mut tokenizer = super::read_tokenizer(&path)?;
        let refuse = |reason: String| Err(Error::config(&path, reason));
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or_default() as usize;
        if largest >= vocabulary {
            let reason = format!("the tokenizer has ids up to {largest}, the text tower {vocabulary} embeddings");
            return refuse(format!("{reason}; they do not belong together"));
        }
        // Files saved after training cut at the window; the segments need the whole text.
        tokenizer.with_padding(None);
        if tokenizer.with_truncation(None).is_err() {
            return refuse("its truncation cannot be switched off".to_owned());
        }
        if let ModelWrapper::BPE(model) = tokenizer.get_model() {
            let has = |piece: &str| model.token_to_id(piece).is_some();
            // Every byte is one of these characters; text with another one would be dropped without a word.
            let whole = ByteLevel::alphabet().into_iter().all(|c| has(&c.to_string()));
            if !whole && !model.unk_token.as_deref().is_some_and(has) {
                return refuse(
                    "it lacks pieces of single bytes, and has none for unknown text, which would be dropped".to_owned(),
                );
            }
            // Merges that are left out at random are for training.
            let mut model = model.clone();
            model.dropout = None;
            tokenizer.with_model(model);
        }
        let read = Self { path, tokenizer, window, pooling };
        let refuse = |reason: String| Err(Error::config(&read.path, reason));
        let around = read.encode("")?;
        if around.len() < 2 {
            return refuse("it adds no start and end tokens; expected CLIP's post-processor".to_owned());
        }
        // The post-processor has ids of its own.
        if let Some(id) = around.iter().find(|id| **id as usize >= vocabulary) {
            return refuse(format!("its post-processor adds the id {id}, the text tower has {vocabulary} embeddings"));
        }
        Ok(read)
    }

    /// The ids of `text`, with the start and end tokens.
    ///
    /// # Errors
    /// When the tokenizer has no piece for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = guarded(|| self.tokenizer.encode_fast(text, true)).and_then(Result::ok);
        let ids = encoding.map(|encoding| encoding.get_ids().to_vec());
        ids.ok_or_else(|| Error::config(&self.path, "it has no pieces for a part of the text that it is to encode"))
    }

    /// Cuts `text` into as many segments as it takes. The start token is in the first segment only, the end token in the last, as in CDPruner: a
    /// segment without an end token is pooled where its largest id is.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn segments(&self, text: &str) -> Result<Vec<Segment>, Error> {
        let ids = self.encode(text)?;
        let segments = ids.chunks(self.window).map(|chunk| {
            let mut ids = chunk.to_vec();
            ids.resize(self.window, 0);
            let pool = match self.pooling {
                Pooling::LargestId => (0..ids.len()).rev().max_by_key(|&i| ids[i]).unwrap_or_default(),
                Pooling::End(end) => ids.iter().position(|&id| id == end).unwrap_or_default(),
            };
            Segment { ids, pool }
        });
        Ok(segments.collect())
    }
}
