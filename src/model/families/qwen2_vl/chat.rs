//! Qwen's form of conversations, ChatML.

use std::path::Path;

use crate::{
    Error,
    model::families::{Chat, UserTurn},
    text::{ChatForm, Placement, Spaces, System, Tokenizer, Videos},
};

/// ChatML with Qwen2-VL's marks of images and videos.
pub const CHATML: ChatForm = ChatForm {
    name: "chatml",
    start: "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
    system: System::Start(["<|im_start|>system\n", "<|im_end|>\n"]),
    user: ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"],
    answer: ["", "<|im_end|>\n"],
    trims: false,
    placement: Placement::Inline,
    media: ["<|vision_start|>", "<|vision_end|>"],
    videos: Videos::Whole,
};

/// The form with the ids that a checkpoint's tokenizer has for its marks.
///
/// # Errors
/// When the tokenizer lacks one of them.
pub(super) fn chat(tokenizer: &Tokenizer, config: &Path) -> Result<Chat, Error> {
    let id = |token: &str| {
        let missing = || Error::config(config, format!("the tokenizer beside it has no `{token}`, which its prompts need"));
        tokenizer.special(token).ok_or_else(missing)
    };
    let (mut start, end) = (tokenizer.encode(CHATML.user[0])?, id("<|im_end|>")?);
    let missing = || Error::config(config, "the tokenizer beside it has no pieces for the start of a user's turn");
    let line = start.pop().ok_or_else(missing)?;
    let marks = CHATML.media.into_iter().map(id).collect::<Result<Vec<_>, _>>()?;
    let pads = Some([id("<|image_pad|>")?, id("<|video_pad|>")?]);
    let user = Some(UserTurn { start, line, end, marks });
    Ok(Chat { pads, user, ends: vec![end], ..Chat::of(&CHATML, Spaces::Fast) })
}
