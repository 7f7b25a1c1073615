//! Messages as turns of a conversation: each with a user's text and images, and the answer to it.

use super::{
    ApiError,
    request::{Content, MessageIn},
};
use crate::text::{IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER};

/// A conversation that ends with a user's turn.
#[derive(Debug, Default)]
pub(in crate::serve) struct Conversation {
    /// The system's text, in place of the model's own.
    pub(in crate::serve) system: Option<String>,
    pub(in crate::serve) turns: Vec<UserTurn>,
}

/// A turn: what the user says and shows, and the answer, in all turns but the last.
#[derive(Debug, Default)]
pub(in crate::serve) struct UserTurn {
    pub(in crate::serve) text: String,
    /// The text with placeholders where its images stand, for models whose templates keep their places.
    pub(in crate::serve) placed: String,
    pub(in crate::serve) images: Vec<ImageSource>,
    pub(in crate::serve) answer: Option<String>,
}

/// An image of a request, and the field that it comes from.
#[derive(Debug)]
pub(in crate::serve) struct ImageSource {
    pub(in crate::serve) param: String,
    pub(in crate::serve) url: String,
}

impl Conversation {
    /// Reads messages. Images stand before the text of their turn, as LLaVA was trained and as Hugging Face's templates for it write it;
    /// [`UserTurn::placed`] has them in their places.
    ///
    /// # Errors
    /// When a role or a part is not known, roles do not take turns, or an image stands where none can be.
    pub(in crate::serve) fn new(messages: Vec<MessageIn>) -> Result<Self, ApiError> {
        let mut all = Self::default();
        for (i, MessageIn { role, content }) in messages.into_iter().enumerate() {
            let at = format!("messages[{i}]");
            let Read { text, placed, images } = read(content, &at)?;
            match role.as_str() {
                "user" => all.user(text, placed, images),
                "system" | "developer" | "assistant" if !images.is_empty() => {
                    let message = format!("{at} is of the role `{role}`; only a user's message has images");
                    return Err(ApiError::bad(at, message));
                }
                "system" | "developer" | "assistant" if text.contains(IMAGE_PLACEHOLDER) => {
                    let message = format!("{at} holds `{IMAGE_PLACEHOLDER}`, which stands for a user's image");
                    return Err(ApiError::bad(at, message));
                }
                "system" | "developer" => all.system(text, &at)?,
                "assistant" => all.assistant(text, &at)?,
                _ => {
                    let message = format!("{at}.role is `{role}`; system, developer, user and assistant are known");
                    return Err(ApiError::bad(format!("{at}.role"), message));
                }
            }
        }
        if all.turns.last().is_none_or(|turn| turn.answer.is_some()) {
            return Err(ApiError::bad("messages", "the last message must be a user's, which is answered"));
        }
        Ok(all)
    }

    fn user(&mut self, text: String, placed: String, images: Vec<ImageSource>) {
        match self.turns.last_mut().filter(|turn| turn.answer.is_none()) {
            // Two messages of a user are one turn.
            Some(turn) => {
                turn.text = format!("{}\n{text}", turn.text);
                turn.placed = format!("{}\n{placed}", turn.placed);
                turn.images.extend(images);
            }
            None => self.turns.push(UserTurn { text, placed, images, answer: None }),
        }
    }

    fn system(&mut self, text: String, at: &str) -> Result<(), ApiError> {
        if !self.turns.is_empty() {
            let message = format!("{at}: the system's text stands before the first message of the user");
            return Err(ApiError::bad(at, message));
        }
        self.system = Some(self.system.take().map_or(text.clone(), |before| format!("{before}\n{text}")));
        Ok(())
    }

    fn assistant(&mut self, text: String, at: &str) -> Result<(), ApiError> {
        match self.turns.last_mut().filter(|turn| turn.answer.is_none()) {
            Some(turn) => {
                turn.answer = Some(text);
                Ok(())
            }
            None => Err(ApiError::bad(at, format!("{at}: an answer stands behind a message of the user"))),
        }
    }
}

/// A message as it is read.
#[derive(Default)]
struct Read {
    /// The parts of text, joined by line breaks.
    text: String,
    /// The parts of text with nothing between them, and placeholders where images stand.
    placed: String,
    images: Vec<ImageSource>,
}

fn read(content: Option<Content>, at: &str) -> Result<Read, ApiError> {
    let parts = match content {
        None => return Ok(Read::default()),
        Some(Content::Text(text)) => {
            let text = checked(text, at)?;
            return Ok(Read { placed: text.clone(), text, images: Vec::new() });
        }
        Some(Content::Parts(parts)) => parts,
    };
    let (mut texts, mut placed, mut images) = (Vec::new(), String::new(), Vec::new());
    for (i, part) in parts.into_iter().enumerate() {
        let here = format!("{at}.content[{i}]");
        let missing =
            |field: &str| ApiError::bad(format!("{here}.{field}"), format!("the field `{here}.{field}` is missing"));
        match part.kind.as_str() {
            "text" => {
                texts.push(checked(part.text.ok_or_else(|| missing("text"))?, &here)?);
                placed += texts.last().map_or("", |text| text);
            }
            "image_url" => {
                let url = part.image_url.ok_or_else(|| missing("image_url"))?.0;
                images.push(ImageSource { param: format!("{here}.image_url"), url });
                placed += IMAGE_PLACEHOLDER;
            }
            kind => {
                let message = format!("{here}.type is `{kind}`; text and image_url are known");
                return Err(ApiError::bad(format!("{here}.type"), message));
            }
        }
    }
    let text = texts.join("\n");
    // A text with placeholders of its own says itself where images stand.
    let placed = if text.contains(IMAGE_PLACEHOLDER) { text.clone() } else { placed };
    Ok(Read { text, placed, images })
}

/// Refuses a placeholder of a video, which no request has.
fn checked(text: String, at: &str) -> Result<String, ApiError> {
    if text.contains(VIDEO_PLACEHOLDER) {
        return Err(ApiError::bad(at, format!("{at} holds `{VIDEO_PLACEHOLDER}`, and requests have no videos")));
    }
    Ok(text)
}
