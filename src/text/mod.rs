//! From a question to token ids, and from token ids to an answer.

mod prompt;
mod sentencepiece;
mod tokenizer;

pub use prompt::{IMAGE_MARK, IMAGE_TOKEN, Prompt, Span, vicuna_v1};
pub use tokenizer::LlamaTokenizer;

/// `text` without the white space around it, as Python's `str.strip`: that takes the four ASCII separators (0x1c to
/// 0x1f) for white space too.
pub fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c))
}
