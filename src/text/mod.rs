//! From a question to token ids, and from token ids to an answer.

mod prompt;
mod sentencepiece;
mod tokenizer;

pub use prompt::{IMAGE_MARK, IMAGE_TOKEN, Prompt, Span, vicuna_v1};
pub use tokenizer::LlamaTokenizer;
