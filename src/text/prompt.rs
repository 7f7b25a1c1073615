//! The conversation template, and where the picture goes in it.

use super::LlamaTokenizer;
use crate::Error;

/// What marks a picture in a prompt's text.
pub const IMAGE_MARK: &str = "<image>";

/// What marks a picture among a prompt's ids, as in the reference code.
pub const IMAGE_TOKEN: i64 = -200;

const SYSTEM: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives \
                      helpful, detailed, and polite answers to the user's questions.";

/// One turn of the `vicuna_v1` template, with a mark and a newline for each picture before the question unless
/// the question has its own marks.
///
/// # Errors
/// When the question has marks, but not one for each picture.
pub fn vicuna_v1(question: &str, images: usize) -> Result<String, Error> {
    let marks = question.matches(IMAGE_MARK).count();
    let question = match marks {
        0 => format!("{}{question}", format!("{IMAGE_MARK}\n").repeat(images)),
        _ if marks == images => question.to_owned(),
        _ => return Err(Error::ImageMarks { marks, images }),
    };
    Ok(format!("{SYSTEM} USER: {question} ASSISTANT:"))
}

/// A tokenised prompt, with [`IMAGE_TOKEN`] where a picture's tokens go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids and picture marks.
    pub ids: Vec<i64>,
    /// The question alone, for methods that compare it with the picture.
    pub question: String,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Text tokens.
    Text(Vec<u32>),
    /// The tokens of the next picture.
    Image,
}

impl Prompt {
    /// Tokenises `text` around its [`IMAGE_MARK`]s: each chunk on its own, then only the first start token kept, as
    /// LLaVA's `tokenizer_image_token`. `question` is what it asks, see [`super::clip_question`].
    pub fn new(text: &str, question: &str, tokenizer: &LlamaTokenizer) -> Self {
        let mut ids = vec![i64::from(tokenizer.bos())];
        for (i, chunk) in text.split(IMAGE_MARK).enumerate() {
            if i > 0 {
                ids.push(IMAGE_TOKEN);
            }
            ids.extend(tokenizer.encode(chunk).into_iter().skip(1).map(i64::from));
        }
        Self { ids, question: question.to_owned() }
    }

    /// How many pictures it takes.
    pub fn images(&self) -> usize {
        self.ids.iter().filter(|&&id| id == IMAGE_TOKEN).count()
    }

    /// The prompt as runs of text and pictures.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for (i, run) in self.ids.split(|&id| id == IMAGE_TOKEN).enumerate() {
            if i > 0 {
                spans.push(Span::Image);
            }
            if !run.is_empty() {
                // Every id other than the mark came out of the tokenizer as u32.
                spans.push(Span::Text(run.iter().map(|&id| id as u32).collect()));
            }
        }
        spans
    }
}
