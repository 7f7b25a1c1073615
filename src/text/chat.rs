//! Conversation forms: the text of a prompt, and the placeholders of images and videos in it.

use super::{IMAGE_PLACEHOLDER, VIDEO_PLACEHOLDER, strip};
use crate::Error;

/// The form of the conversations that a model was trained on. Families have their forms as constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatForm {
    /// The name of the form in the family's own code.
    pub name: &'static str,
    /// The text before the first turn: the system's text that the model was trained with.
    pub start: &'static str,
    /// The place of a system's text that a user gives instead.
    pub system: System,
    /// The text before and after a user's text; the second opens the answer.
    pub user: [&'static str; 2],
    /// The text before and after an answer of an earlier turn.
    pub answer: [&'static str; 2],
    /// Whether white space around a user's text is cut off.
    pub trims: bool,
    /// The place of the images' placeholders in a question that has none.
    pub placement: Placement,
    /// The text before and after a placeholder.
    pub media: [&'static str; 2],
    /// The meaning of [`VIDEO_PLACEHOLDER`] in a question.
    pub videos: Videos,
}

/// The place of a system's text that a user gives, and the text before and after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// In place of [`ChatForm::start`].
    Start([&'static str; 2]),
    /// Before the user's text of the first turn.
    FirstTurn([&'static str; 2]),
}

/// The meaning of [`VIDEO_PLACEHOLDER`] in a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Videos {
    /// None: it is text.
    None,
    /// It stands for all frames of a video, each of which has a placeholder.
    Frames,
    /// It stands for a video, which has one placeholder.
    Whole,
}

/// The place of the images' placeholders in a question that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Placeholders stand before the question, each on a line of its own.
    Lines,
    /// Placeholders stand before the question, all on one line.
    OneLine,
    /// Placeholders stand before the question, with nothing between them and it.
    Inline,
}

/// A turn of a conversation: the user's text, and the model's answer, if there is one yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The user's text, with placeholders where it has images.
    pub user: String,
    /// The answer, in all turns but the last.
    pub answer: Option<String>,
}

impl ChatForm {
    /// Writes the prompt of one question about images and videos, of which `media` says how many placeholders each takes: 1 for an image, the number
    /// of frames for a video. The placeholders stand before the question unless it has its own; there, [`VIDEO_PLACEHOLDER`] stands for all frames of
    /// a video. Images and videos go to the placeholders in their order.
    ///
    /// # Errors
    /// When the question has placeholders, but not as many, or one for a video where an image comes next, or the other way round.
    pub fn render(&self, question: &str, media: &[usize]) -> Result<String, Error> {
        let user = self.place(question, media)?;
        Ok(self.conversation(None, &[Turn { user, answer: None }]))
    }

    /// Writes the prompt of several turns, whose placeholders are in their texts already: [`Self::place`]. A `system`'s text stands in place of the
    /// form's own.
    pub fn conversation(&self, system: Option<&str>, turns: &[Turn]) -> String {
        let (start, mut first) = match (system, self.system) {
            (None, _) => (self.start.to_owned(), String::new()),
            (Some(text), System::Start([before, after])) => (format!("{before}{text}{after}"), String::new()),
            (Some(text), System::FirstTurn([before, after])) => {
                (self.start.to_owned(), format!("{before}{text}{after}"))
            }
        };
        let mut text = start;
        for Turn { user, answer } in turns {
            let user = if self.trims { strip(user) } else { user };
            text.extend([self.user[0], &std::mem::take(&mut first), user, self.user[1]]);
            if let Some(answer) = answer {
                text.extend([self.answer[0], answer, self.answer[1]]);
            }
        }
        text
    }

    /// The text of a turn with the placeholders of all its images and videos, as in [`Self::render`].
    ///
    /// # Errors
    /// As [`Self::render`].
    pub fn place(&self, question: &str, media: &[usize]) -> Result<String, Error> {
        let mut whole = String::new();
        let (mut rest, mut unplaced) = (question, media.iter());
        // A question that has placeholders for videos must have images and videos in the order of the media.
        while let Some(at) = rest.find(VIDEO_PLACEHOLDER).filter(|_| self.videos != Videos::None) {
            let before = &rest[..at];
            let images = unplaced.by_ref().take(before.matches(IMAGE_PLACEHOLDER).count()).all(|&count| count == 1);
            let frames =
                unplaced.next().copied().filter(|&frames| images && (frames > 1 || self.videos == Videos::Whole));
            let frames = frames.ok_or_else(|| Error::VideoPlaceholders { question: question.to_owned() })?;
            whole += before;
            whole += &IMAGE_PLACEHOLDER.repeat(frames);
            rest = &rest[at + VIDEO_PLACEHOLDER.len()..];
        }
        let question = whole + rest;
        let (count, found) = (media.iter().sum(), question.matches(IMAGE_PLACEHOLDER).count());
        let placed = match (found, self.placement) {
            _ if found == count => question,
            (0, Placement::Lines) => format!("{IMAGE_PLACEHOLDER}\n").repeat(count) + &question,
            (0, Placement::OneLine) => format!("{}\n{question}", IMAGE_PLACEHOLDER.repeat(count)),
            (0, Placement::Inline) => IMAGE_PLACEHOLDER.repeat(count) + &question,
            _ => return Err(Error::ImagePlaceholders { placeholders: found, images: count }),
        };
        let [before, after] = self.media;
        if before.is_empty() && after.is_empty() {
            return Ok(placed);
        }
        Ok(placed.replace(IMAGE_PLACEHOLDER, &format!("{before}{IMAGE_PLACEHOLDER}{after}")))
    }
}
