//! From a question to token ids, and from token ids to an answer.

mod clip;
mod prompt;
mod sentencepiece;
mod tokenizer;

pub use clip::{ClipTokenizer, Pooling, Segment};
pub use prompt::{IMAGE_MARK, IMAGE_TOKEN, Prompt, Span, Template, VIDEO_MARK, vicuna_v1};
pub use tokenizer::LlamaTokenizer;

/// Files that tokenizers are read from.
pub const TOKENIZER_JSON: &str = "tokenizer.json";
/// SentencePiece's.
pub const TOKENIZER_MODEL: &str = "tokenizer.model";
/// The tokens beside its pieces.
pub const ADDED_TOKENS: &str = "added_tokens.json";
/// Settings.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Asked at the end of most benchmark questions.
pub const SINGLE_WORD: &str = "\nAnswer the question using a single word or phrase.";

/// White space as Python sees it: the four ASCII separators (0x1c to 0x1f) are some too.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// `text` without the white space around it, as Python's `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// The first character in upper case and all others in lower case, as Python's `str.capitalize`.
pub fn capitalize(text: &str) -> String {
    let mut rest = text.chars();
    let first: String = rest.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    first + &rest.as_str().to_lowercase()
}

/// What CLIP is given of a question: all but the marks of pictures and the request for a single word, as CDPruner's
/// `model_vqa_loader`.
pub fn clip_question(question: &str) -> String {
    let plain = question.replace(&format!("{IMAGE_MARK}\n"), "").replace(IMAGE_MARK, "");
    plain.replace(SINGLE_WORD, "")
}
