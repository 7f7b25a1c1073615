//! Byte-level BPE, as Llama-3's and Qwen's `tokenizer.json` have it: text is cut by a pattern, and its bytes are merged into pieces.

use std::path::{Path, PathBuf};

use tokenizers::{ModelWrapper, Tokenizer};

use super::{
    TokenizerConfig, read_config,
    vocabulary::{CONTROL, NORMAL, USER_DEFINED, pieces_and_merges},
};
use crate::{Error, unwind::guarded};

/// A tokenizer whose pieces are bytes.
pub(super) struct ByteLevel {
    /// The file that the tokenizer was read from.
    path: PathBuf,
    tokenizer: Tokenizer,
    /// Number of rows of the model's embedding.
    vocabulary: usize,
    /// The id that starts every prompt, where there is one.
    bos: Option<u32>,
    eos: u32,
    /// Whether spaces before punctuation are taken out of decoded text.
    cleans_up: bool,
}

/// Llama-3's start token, for folders whose settings name none.
const BOS: &str = "<|begin_of_text|>";
/// The token that ends a text of Llama-3, for folders whose settings name none.
const EOS: &str = "<|end_of_text|>";

/// Whether a `tokenizer.json` is a byte-level BPE.
pub(super) fn is_byte_level(tokenizer: &Tokenizer) -> bool {
    matches!(tokenizer.get_model(), ModelWrapper::BPE(model) if !model.byte_fallback) && {
        let pieces = tokenizer.get_vocab(false);
        // The names that byte-level tokenizers give to a space and a newline.
        pieces.contains_key("Ġ") && pieces.contains_key("Ċ")
    }
}

impl ByteLevel {
    pub(super) fn new(mut tokenizer: Tokenizer, path: &Path, vocabulary: usize) -> Result<Self, Error> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let TokenizerConfig { bos_token, eos_token, clean_up_tokenization_spaces, .. } = read_config(folder)?;
        // Merges that are left out at random are for training.
        if let ModelWrapper::BPE(model) = tokenizer.get_model() {
            let mut model = model.clone();
            model.dropout = None;
            tokenizer.with_model(model);
        }
        let id = |name: &str| {
            let missing = || Error::config(path, format!("the tokenizer has no {}", secateur_weights::printable(name)));
            tokenizer.token_to_id(name).filter(|id| (*id as usize) < vocabulary).ok_or_else(missing)
        };
        let bos = match &bos_token {
            Some(token) => Some(id(token.text())?),
            // Qwen's settings have none.
            None if tokenizer.token_to_id(BOS).is_none() => None,
            None => Some(id(BOS)?),
        };
        let eos = id(eos_token.as_ref().map_or(EOS, |token| token.text()))?;
        let cleans_up = clean_up_tokenization_spaces.unwrap_or(true);
        Ok(Self { path: path.to_owned(), tokenizer, vocabulary, bos, eos, cleans_up })
    }

    /// A tokenizer with these start and end tokens. `path` is the file that it is from.
    pub(super) fn of(tokenizer: Tokenizer, path: &Path, vocabulary: usize, (bos, eos): (Option<u32>, u32)) -> Self {
        Self { path: path.to_owned(), tokenizer, vocabulary, bos, eos, cleans_up: true }
    }

    /// Lists all tokens, id, text and type, and returns the merges.
    ///
    /// # Errors
    /// When the tokenizer's file cannot be taken apart.
    pub(super) fn list(&self, mut token: impl FnMut(u32, &str, i32)) -> Result<Vec<String>, Error> {
        let (pieces, merges) = pieces_and_merges(&self.tokenizer)
            .ok_or_else(|| Error::config(&self.path, "its pieces and merges cannot be listed"))?;
        pieces.iter().for_each(|(id, piece)| token(*id, piece, NORMAL));
        for (id, added) in self.tokenizer.get_added_tokens_decoder() {
            token(id, &added.content, if added.special { CONTROL } else { USER_DEFINED });
        }
        Ok(merges)
    }

    pub(super) fn bos(&self) -> Option<u32> {
        self.bos
    }

    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    /// The id of the special token `text`.
    pub(super) fn special(&self, text: &str) -> Option<u32> {
        let added = self.tokenizer.get_added_tokens_decoder();
        let found = added.iter().find(|(_, token)| token.special && token.content == text);
        found.map(|(id, _)| *id).filter(|id| (*id as usize) < self.vocabulary)
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let encoding = guarded(|| self.tokenizer.encode(text, false)).and_then(Result::ok);
        let encoding = encoding
            .ok_or_else(|| Error::config(&self.path, "it has no pieces for a part of the text that it is to encode"))?;
        if let Some(id) = encoding.get_ids().iter().find(|id| **id as usize >= self.vocabulary) {
            let reason = format!(
                "it gives the id {id} for a part of the text, and the model has {} embeddings; they do not belong together",
                self.vocabulary
            );
            return Err(Error::config(&self.path, reason));
        }
        Ok(self.bos.iter().chain(encoding.get_ids()).copied().collect())
    }

    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let text = guarded(|| self.tokenizer.decode(ids, true)).and_then(Result::ok).unwrap_or_default();
        if self.cleans_up { clean_up(&text) } else { text }
    }
}

/// Cleans up text as transformers' `clean_up_tokenization`: without the space that simple tokenizers put before punctuation and short forms.
fn clean_up(text: &str) -> String {
    const PAIRS: [(&str, &str); 10] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    PAIRS.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}
