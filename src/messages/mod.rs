//! Conversations in files: messages as transformers' processors and OpenAI's API have them.

mod read;

use std::path::Path;

use crate::{
    Error,
    image::{decode, decode_bytes},
    text::{ChatForm, IMAGE_PLACEHOLDER, Placement, Prompt, Tokenizer, Turn, clip_question},
    video::{FrameRule, Media, Video},
};
use read::{Part, Role, Source, VideoSource};

/// A conversation with its images and videos.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Messages {
    /// The system's text, in place of the form's own.
    pub system: Option<String>,
    /// The turns, with [`IMAGE_PLACEHOLDER`] where an image or a video stands.
    pub turns: Vec<Turn>,
    /// The images and videos, in the order of their placeholders.
    pub media: Vec<Media>,
    /// The number of images and videos of each turn.
    counts: Vec<usize>,
    /// Whether placeholders stand where a list of parts has images and videos, and not where a user wrote them.
    parts: bool,
}

impl Messages {
    /// A single question about images and videos, which stand before it unless it has placeholders.
    pub fn question(text: &str, media: Vec<Media>) -> Self {
        let counts = vec![media.len()];
        Self { system: None, turns: vec![Turn { user: text.to_owned(), answer: None }], media, counts, parts: false }
    }

    /// Reads a file of messages, and the images and videos that it names, for a model that takes such `frames` of a video. Relative paths are relative to
    /// the file.
    ///
    /// # Errors
    /// When the file is no list of messages, the messages do not alternate between user and assistant or do not end with a user's, or an image or video
    /// cannot be read.
    pub fn read(path: &Path, frames: Option<FrameRule>) -> Result<Self, Error> {
        let fail = |reason: String| Error::data(path, reason);
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut found = Self { parts: true, ..Self::default() };
        for (i, message) in read::messages(path)?.into_iter().enumerate() {
            let number = i + 1;
            match message.role {
                Role::System if i == 0 => found.system = Some(only_text(message.parts, number).map_err(fail)?),
                Role::System => return Err(fail(format!("message {number} is the system's; only the first may be"))),
                Role::User if found.turns.last().is_none_or(|turn| turn.answer.is_some()) => {
                    let (mut user, mut count) = (String::new(), 0);
                    for part in message.parts {
                        let media = match part {
                            Part::Text(text) => {
                                user += &text;
                                continue;
                            }
                            Part::Image(source) => image(source, folder)?,
                            Part::Video(source) => Media::Video(video(source, folder, frames)?),
                        };
                        user += IMAGE_PLACEHOLDER;
                        count += 1;
                        found.media.push(media);
                    }
                    found.turns.push(Turn { user, answer: None });
                    found.counts.push(count);
                }
                Role::User => {
                    return Err(fail(format!(
                        "message {number} is a user's behind a user's; an assistant's is expected between"
                    )));
                }
                Role::Assistant => match found.turns.last_mut().filter(|turn| turn.answer.is_none()) {
                    Some(turn) => turn.answer = Some(only_text(message.parts, number).map_err(fail)?),
                    None => {
                        return Err(fail(format!(
                            "message {number} is the assistant's; a user's is expected before it"
                        )));
                    }
                },
            }
        }
        if found.turns.last().is_none_or(|turn| turn.answer.is_some()) {
            return Err(fail("the last message is expected to be a user's, which is answered".to_owned()));
        }
        Ok(found)
    }

    /// The text of the last user's turn, for methods that compare it with images.
    pub fn last_question(&self) -> String {
        self.turns.last().map_or_else(String::new, |turn| clip_question(&turn.user))
    }

    /// The prompt in a model's form.
    ///
    /// # Errors
    /// When a turn's placeholders do not belong to its images and videos, or the tokenizer has no piece for a part of the text.
    pub fn prompt(&self, form: &ChatForm, frames: Option<FrameRule>, tokenizer: &Tokenizer) -> Result<Prompt, Error> {
        let mut media = self.media.iter();
        let mut turns = Vec::with_capacity(self.turns.len());
        for (turn, count) in self.turns.iter().zip(&self.counts) {
            let own: Vec<usize> = media.by_ref().take(*count).map(|media| media.placeholders(frames)).collect();
            let user = if self.parts { place(form, &turn.user, &own)? } else { form.place(&turn.user, &own)? };
            turns.push(Turn { user, answer: turn.answer.clone() });
        }
        let text = form.conversation(self.system.as_deref(), &turns);
        Prompt::new(&text, &self.last_question(), tokenizer)
    }
}

/// The text of a turn with all placeholders: those that stand for a video are repeated for models that read each frame at a placeholder of its own. Where
/// the form has placeholders on lines of their own, one that is followed by text gets a line.
fn place(form: &ChatForm, user: &str, media: &[usize]) -> Result<String, Error> {
    let parts: Vec<&str> = user.split(IMAGE_PLACEHOLDER).collect();
    if parts.len() == 1 || parts.len() != media.len() + 1 {
        return form.place(user, media);
    }
    let mut whole = parts[0].to_owned();
    for (part, count) in parts[1..].iter().zip(media) {
        whole += &IMAGE_PLACEHOLDER.repeat(*count);
        if form.placement != Placement::Inline && !part.starts_with('\n') {
            whole.push('\n');
        }
        whole += part;
    }
    form.place(&whole, media)
}

/// The text of a message that has nothing else.
fn only_text(parts: Vec<Part>, number: usize) -> Result<String, String> {
    parts
        .into_iter()
        .map(|part| match part {
            Part::Text(text) if text.contains(IMAGE_PLACEHOLDER) => {
                Err(format!("message {number} holds `{IMAGE_PLACEHOLDER}`, which stands for a user's image"))
            }
            Part::Text(text) => Ok(text),
            Part::Image(_) | Part::Video(_) => {
                Err(format!("message {number} has an image or a video; only a user's message may have some"))
            }
        })
        .collect()
}

fn image(source: Source, folder: &Path) -> Result<Media, Error> {
    Ok(match source {
        Source::Path(path) => decode(&folder.join(path))?,
        Source::Bytes(bytes) => decode_bytes(Path::new("data:"), &bytes)?,
    }
    .into())
}

fn video(source: VideoSource, folder: &Path, frames: Option<FrameRule>) -> Result<Video, Error> {
    let VideoSource { paths, is_list, rate } = source;
    let first = folder.join(paths.first().map_or(Path::new(""), |path| path));
    let rule = frames.ok_or_else(|| Error::NoVideo { path: first.clone() })?;
    let rule = match (rule, rate) {
        (FrameRule::Rate(_), Some(rate)) => FrameRule::Rate(rate),
        (rule, _) => rule,
    };
    let video = match is_list {
        true => Video::of_frames(&paths.iter().map(|path| folder.join(path)).collect::<Vec<_>>(), rule)?,
        false => Video::read(&first, rule)?,
    };
    Ok(Video { rate: video.rate.or(rate), ..video })
}
