//! The CLIP tokenizer, and how CDPruner cuts long questions.

use std::path::Path;

use tokenizers::Tokenizer;

use super::TOKENIZER_JSON;
use crate::Error;

/// Text to the ids of `CLIPTokenizerFast`.
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    /// Tokens that the text tower reads at once.
    window: usize,
    pooling: Pooling,
}

/// Which token stands for a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The one with the largest id: what transformers does where the config says that the end token is 2, as OpenAI's
    /// checkpoints do, although theirs is the last of the vocabulary.
    LargestId,
    /// The first one with this id.
    End(u32),
}

/// A part of a text, as long as the text tower reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Token ids, the last segment filled up with zeros.
    pub ids: Vec<u32>,
    /// The position of the token that stands for it.
    pub pool: usize,
}

impl ClipTokenizer {
    /// Reads `tokenizer.json` of a CLIP checkpoint whose text tower reads `window` tokens at once.
    ///
    /// # Errors
    /// When the file is missing, damaged, or has more tokens than the tower's `vocabulary`.
    pub fn read(folder: &Path, window: usize, vocabulary: usize, pooling: Pooling) -> Result<Self, Error> {
        let path = folder.join(TOKENIZER_JSON);
        let bytes = std::fs::read(&path).map_err(Error::io(&path, "the CLIP tokenizer cannot be read"))?;
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Error::config(&path, e.to_string()))?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or_default() as usize;
        if largest >= vocabulary {
            let reason = format!("the tokenizer has ids up to {largest}, the text tower {vocabulary} embeddings");
            return Err(Error::config(&path, format!("{reason}; they do not belong together")));
        }
        // Files saved after training cut at the window; the segments need the whole text.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::config(&path, e.to_string()))?;
        let read = Self { tokenizer, window, pooling };
        if read.encode("").len() < 2 {
            return Err(Error::config(&path, "it adds no start and end tokens; expected CLIP's post-processor"));
        }
        Ok(read)
    }

    /// The ids of `text` with its start and end tokens.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        // A byte-level model has an answer for every string.
        self.tokenizer.encode_fast(text, true).map(|encoding| encoding.get_ids().to_vec()).unwrap_or_default()
    }

    /// `text` in as many windows as it takes. The start token is in the first one only, the end token in the last, as in
    /// CDPruner: a segment without an end token is pooled where its largest id is.
    pub fn segments(&self, text: &str) -> Vec<Segment> {
        self.encode(text)
            .chunks(self.window)
            .map(|chunk| {
                let mut ids = chunk.to_vec();
                ids.resize(self.window, 0);
                let pool = match self.pooling {
                    Pooling::LargestId => (0..ids.len()).rev().max_by_key(|&i| ids[i]).unwrap_or_default(),
                    Pooling::End(end) => ids.iter().position(|&id| id == end).unwrap_or_default(),
                };
                Segment { ids, pool }
            })
            .collect()
    }
}
