//! Tokenizers: text to ids and back, by the kind of tokenizer that a checkpoint's folder has.

mod byte_level;
mod gguf;
mod llama;
mod sentencepiece;
mod vocabulary;

use std::path::Path;

use byte_level::{ByteLevel, is_byte_level};
use llama::LlamaTokenizer;
pub use llama::Spaces;
use serde::Deserialize;

use super::{TOKENIZER_CONFIG, TOKENIZER_JSON, TOKENIZER_MODEL, read_tokenizer};
use crate::{Error, files::read_json};

/// A tokenizer: text to ids and back.
pub struct Tokenizer(Kind);

enum Kind {
    /// SentencePiece's pieces, as Llama and Mistral have them.
    Llama(Box<LlamaTokenizer>),
    /// Pieces of bytes, as Llama-3 has them.
    Bytes(Box<ByteLevel>),
}

/// The settings that are read from `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    legacy: Option<bool>,
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    clean_up_tokenization_spaces: Option<bool>,
}

/// A token's text, alone or among its settings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Settings { content: String },
}

impl Token {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Settings { content: text } => text,
        }
    }
}

/// The settings in a folder, which may have none.
fn read_config(folder: &Path) -> Result<TokenizerConfig, Error> {
    let path = folder.join(TOKENIZER_CONFIG);
    if !path.is_file() {
        return Ok(TokenizerConfig::default());
    }
    read_json(&path, "the tokenizer's settings cannot be read")
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint's folder: `tokenizer.model` if there is one, else `tokenizer.json`.
    /// `vocabulary` is the number of embeddings; added tokens beyond it, as some Vicuna folders have, are plain text.
    ///
    /// # Errors
    /// When neither file is there, the file is damaged or of another kind, or it has more pieces than the model.
    pub fn read(folder: &Path, vocabulary: usize) -> Result<Self, Error> {
        let path = folder.join(Self::file(folder));
        if path.ends_with(TOKENIZER_JSON) && path.is_file() {
            let json = read_tokenizer(&path)?;
            if is_byte_level(&json) {
                check_pieces(json.get_vocab(false).into_values(), vocabulary, &path)?;
                return Ok(Self(Kind::Bytes(Box::new(ByteLevel::new(json, &path, vocabulary)?))));
            }
        }
        Ok(Self(Kind::Llama(Box::new(LlamaTokenizer::read(folder, vocabulary)?))))
    }

    /// Sets the rule by which an answer's spaces and bytes are written; a byte-level tokenizer has none.
    #[must_use]
    pub fn with_spaces(mut self, spaces: Spaces) -> Self {
        if let Kind::Llama(tokenizer) = &mut self.0 {
            tokenizer.spaces = spaces;
        }
        self
    }

    /// The file in a folder that the tokenizer is read from.
    pub fn file(folder: &Path) -> &'static str {
        if folder.join(TOKENIZER_MODEL).is_file() { TOKENIZER_MODEL } else { TOKENIZER_JSON }
    }

    /// The id that starts every prompt; `None` where prompts have no such start.
    pub fn bos(&self) -> Option<u32> {
        match &self.0 {
            Kind::Llama(tokenizer) => Some(tokenizer.bos()),
            Kind::Bytes(tokenizer) => tokenizer.bos(),
        }
    }

    /// The id that ends an answer, by the tokenizer's own settings.
    pub fn eos(&self) -> u32 {
        match &self.0 {
            Kind::Llama(tokenizer) => tokenizer.eos(),
            Kind::Bytes(tokenizer) => tokenizer.eos(),
        }
    }

    /// The id of the special token `text`, if there is one.
    pub fn special(&self, text: &str) -> Option<u32> {
        match &self.0 {
            Kind::Llama(tokenizer) => tokenizer.special(text),
            Kind::Bytes(tokenizer) => tokenizer.special(text),
        }
    }

    /// The ids of `text`, with the leading [`Self::bos`], where there is one.
    ///
    /// # Errors
    /// When the tokenizer has no piece for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        match &self.0 {
            Kind::Llama(tokenizer) => tokenizer.encode(text),
            Kind::Bytes(tokenizer) => tokenizer.encode(text),
        }
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        match &self.0 {
            Kind::Llama(tokenizer) => tokenizer.decode(ids),
            Kind::Bytes(tokenizer) => tokenizer.decode(ids),
        }
    }
}

/// Refuses a tokenizer with ids that the model has no embedding for.
fn check_pieces(ids: impl Iterator<Item = u32>, vocabulary: usize, path: &Path) -> Result<(), Error> {
    let largest = ids.max().unwrap_or_default() as usize;
    if largest < vocabulary {
        return Ok(());
    }
    let reason = format!("the tokenizer has ids up to {largest}, the model {vocabulary} embeddings");
    Err(Error::config(path, format!("{reason}; they do not belong together")))
}
