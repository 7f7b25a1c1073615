//! A tokenised prompt, and the places of the images in it.

use super::Tokenizer;
use crate::Error;

/// The placeholder of an image, or of a video's frame, in a prompt's text.
pub const IMAGE_PLACEHOLDER: &str = "<image>";

/// The placeholder of an image, or of a video's frame, among a prompt's ids, as in LLaVA's code.
pub const IMAGE_TOKEN: i64 = -200;

/// The placeholder of a whole video in a question of Video-LLaVA's training data.
pub const VIDEO_PLACEHOLDER: &str = "<video>";

/// A tokenised prompt, with [`IMAGE_TOKEN`] where an image's tokens go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// Token ids and image placeholders.
    pub ids: Vec<i64>,
    /// The question alone, for methods that compare it with the image.
    pub question: String,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Text tokens.
    Text(Vec<u32>),
    /// The tokens of the next image.
    Image,
}

impl Prompt {
    /// Tokenises `text` around its [`IMAGE_PLACEHOLDER`]s: each part on its own, then only the first start token kept, as
    /// LLaVA's `tokenizer_image_token`. `question` is the question alone, see [`super::clip_question`].
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn new(text: &str, question: &str, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let start = tokenizer.bos();
        let mut ids: Vec<i64> = start.into_iter().map(i64::from).collect();
        for (i, part) in text.split(IMAGE_PLACEHOLDER).enumerate() {
            if i > 0 {
                ids.push(IMAGE_TOKEN);
            }
            ids.extend(tokenizer.encode(part)?.into_iter().skip(start.iter().count()).map(i64::from));
        }
        Ok(Self { ids, question: question.to_owned() })
    }

    /// The number of images that the prompt takes, frames of videos included.
    pub fn images(&self) -> usize {
        self.ids.iter().filter(|&&id| id == IMAGE_TOKEN).count()
    }

    /// The prompt as runs of text and images.
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = Vec::new();
        for (i, run) in self.ids.split(|&id| id == IMAGE_TOKEN).enumerate() {
            if i > 0 {
                spans.push(Span::Image);
            }
            if !run.is_empty() {
                // Every id other than the placeholder came out of the tokenizer as u32.
                spans.push(Span::Text(run.iter().map(|&id| id as u32).collect()));
            }
        }
        spans
    }
}
