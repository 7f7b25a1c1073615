//! The conversation template, and where the picture goes in it.

use super::LlamaTokenizer;
use crate::Error;

/// What marks a picture in a prompt's text.
pub const IMAGE_MARK: &str = "<image>";

/// What marks a picture among a prompt's ids, as in the reference code.
pub const IMAGE_TOKEN: i64 = -200;

/// What stands for a whole video in a question of Video-LLaVA's training data.
pub const VIDEO_MARK: &str = "<video>";

/// The conversation that a model was trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// LLaVA's `vicuna_v1`; a newline after every mark.
    VicunaV1,
    /// Video-LLaVA's `llava_v1`, which has another system text; all marks, a newline, the question.
    VideoLlava,
}

impl Template {
    fn system(self) -> &'static str {
        match self {
            Self::VicunaV1 => {
                "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
                 detailed, and polite answers to the user's questions."
            }
            Self::VideoLlava => {
                "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, \
                 detailed, and polite answers to the human's questions."
            }
        }
    }

    /// One turn about pictures and videos, of which `marks` says how many marks each takes: 1 for a picture, its frames for a video.
    /// The marks stand before the question unless it has its own; there, [`VIDEO_MARK`] stands for all of a video's. Pictures and videos
    /// go to the marks in their order.
    ///
    /// # Errors
    /// When the question has marks, but not as many, or one for a video where a picture's turn is, or the other way round.
    pub fn turn(self, question: &str, marks: &[usize]) -> Result<String, Error> {
        let mut whole = String::new();
        let (mut rest, mut media) = (question, marks.iter());
        // Where the question says which is which, it must be so.
        while let Some(at) = rest.find(VIDEO_MARK).filter(|_| self == Self::VideoLlava) {
            let before = &rest[..at];
            let pictures = media.by_ref().take(before.matches(IMAGE_MARK).count()).all(|&marks| marks == 1);
            let frames = media.next().copied().filter(|&frames| pictures && frames > 1);
            let frames = frames.ok_or_else(|| Error::VideoMarks { question: question.to_owned() })?;
            whole += before;
            whole += &IMAGE_MARK.repeat(frames);
            rest = &rest[at + VIDEO_MARK.len()..];
        }
        let question = whole + rest;
        let (images, found) = (marks.iter().sum(), question.matches(IMAGE_MARK).count());
        let question = match (found, self) {
            (0, Self::VicunaV1) => format!("{}{question}", format!("{IMAGE_MARK}\n").repeat(images)),
            (0, Self::VideoLlava) if images > 0 => format!("{}\n{question}", IMAGE_MARK.repeat(images)),
            _ if found == images => question,
            _ => return Err(Error::ImageMarks { marks: found, images }),
        };
        Ok(format!("{} USER: {question} ASSISTANT:", self.system()))
    }
}

/// One turn of [`Template::VicunaV1`] about so many pictures.
///
/// # Errors
/// As [`Template::turn`].
pub fn vicuna_v1(question: &str, images: usize) -> Result<String, Error> {
    Template::VicunaV1.turn(question, &vec![1; images])
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
    ///
    /// # Errors
    /// As [`LlamaTokenizer::encode`].
    pub fn new(text: &str, question: &str, tokenizer: &LlamaTokenizer) -> Result<Self, Error> {
        let mut ids = vec![i64::from(tokenizer.bos())];
        for (i, chunk) in text.split(IMAGE_MARK).enumerate() {
            if i > 0 {
                ids.push(IMAGE_TOKEN);
            }
            ids.extend(tokenizer.encode(chunk)?.into_iter().skip(1).map(i64::from));
        }
        Ok(Self { ids, question: question.to_owned() })
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
