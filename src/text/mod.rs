//! From a question to token ids, and from token ids to an answer.

mod clip;
mod prompt;
mod sentencepiece;
mod tokenizer;

pub use clip::{ClipTokenizer, Pooling, Segment};
pub use prompt::{IMAGE_MARK, IMAGE_TOKEN, Prompt, Span, Template, VIDEO_MARK, vicuna_v1};
pub use tokenizer::LlamaTokenizer;

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

/// What CLIP is given of a question: all but the marks of pictures and the request for a single word, as CDPruner's
/// `model_vqa_loader`.
pub fn clip_question(question: &str) -> String {
    let plain = question.replace(&format!("{IMAGE_MARK}\n"), "").replace(IMAGE_MARK, "");
    plain.replace(SINGLE_WORD, "")
}
