//! Text: from a question to token ids, and from token ids to an answer.

mod chat;
mod clip;
mod prompt;
mod tokenizer;

use std::path::Path;

pub use chat::{ChatForm, Placement, System, Turn, Videos};
pub use clip::{ClipTokenizer, Pooling, Segment};
pub use prompt::{IMAGE_PLACEHOLDER, IMAGE_TOKEN, Prompt, Span, VIDEO_PLACEHOLDER};
use secateur_weights::parse_json;
use serde_json::Value;
pub use tokenizer::{Spaces, Tokenizer};

use crate::{Error, files::read_text, unwind::guarded};

/// Reads a `tokenizer.json`, on some damaged ones of which the library panics.
///
/// # Errors
/// When the file cannot be read.
fn read_tokenizer(path: &Path) -> Result<tokenizers::Tokenizer, Error> {
    let text = read_text(path, "the tokenizer cannot be read")?;
    // Text that is no JSON at all is reported with its line.
    let json: Value = parse_json(&text).map_err(|reason| Error::config(path, reason))?;
    if growth(&json["normalizer"]) > MAX_GROWTH {
        return Err(Error::config(path, "its normalizer writes much more text than it is given"));
    }
    let read = guarded(|| tokenizers::Tokenizer::from_bytes(text)).and_then(Result::ok);
    read.ok_or_else(|| Error::config(path, "it is no tokenizer in the form of Hugging Face's library, or damaged"))
}

/// A limit on the bytes that a tokenizer may make of one before it looks for pieces.
const MAX_GROWTH: usize = 64;

/// The largest number of bytes that a normalizer writes for one.
fn growth(normalizer: &Value) -> usize {
    let length = |key: &str| normalizer[key].as_str().map_or(1, |text| text.len().max(1));
    let parts = normalizer["normalizers"].as_array().map_or(&[][..], Vec::as_slice);
    let parts = parts.iter().map(growth).fold(1, usize::saturating_mul);
    length("content").saturating_mul(length("prepend")).saturating_mul(parts)
}

/// The tokenizer's file of Hugging Face's library.
pub const TOKENIZER_JSON: &str = "tokenizer.json";
/// The tokenizer's file of SentencePiece.
pub const TOKENIZER_MODEL: &str = "tokenizer.model";
/// The file of the tokens beside SentencePiece's pieces.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// The file of the tokenizer's settings.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// The request at the end of most benchmark questions.
pub const SINGLE_WORD: &str = "\nAnswer the question using a single word or phrase.";

/// Whether a character is white space in Python: the four ASCII separators (0x1c to 0x1f) are some too.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Strips the white space around `text`, as Python's `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Puts the first character in upper case and all others in lower case, as Python's `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    first + &rest.as_str().to_lowercase()
}

/// The part of a question that CLIP is given: all but the placeholders of images and the request for a single word, as in CDPruner's
/// `model_vqa_loader`.
pub fn clip_question(question: &str) -> String {
    let plain = question.replace(&format!("{IMAGE_PLACEHOLDER}\n"), "").replace(IMAGE_PLACEHOLDER, "");
    plain.replace(SINGLE_WORD, "")
}
