//! The conversation forms of LLaVA-1.5 and LLaVA-NeXT, and the choice of the one that a checkpoint was trained on.

use std::path::Path;

use super::detect::Language;
use crate::{
    Error,
    text::{ChatForm, Placement, System, Tokenizer, Videos},
};

/// LLaVA's `vicuna_v1`: LLaVA-1.5 and LLaVA-NeXT on Vicuna.
pub const VICUNA_V1: ChatForm = ChatForm {
    name: "vicuna_v1",
    start: "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, \
            detailed, and polite answers to the user's questions. ",
    system: System::Start(["", " "]),
    user: ["USER: ", " ASSISTANT:"],
    answer: [" ", "</s>"],
    trims: false,
    placement: Placement::Lines,
    media: ["", ""],
    videos: Videos::None,
};

/// LLaVA's `mistral_instruct`: LLaVA-NeXT on Mistral.
pub const MISTRAL_INSTRUCT: ChatForm = ChatForm {
    name: "mistral_instruct",
    start: "",
    system: System::FirstTurn(["<<SYS>>\n", "\n<</SYS>>\n\n"]),
    user: ["[INST] ", " [/INST]"],
    answer: [" ", " </s>"],
    ..VICUNA_V1
};

/// LLaVA-NeXT's `llava_llama_3`. The tokenizer adds the start token, which the official template writes out, once.
pub const LLAMA_3: ChatForm = ChatForm {
    name: "llava_llama_3",
    start: "<|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and vision assistant. You are able to \
            understand the visual content that the user provides, and assist the user with a variety of tasks using natural \
            language.<|eot_id|>",
    system: System::Start(["<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"]),
    user: [
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
    ],
    answer: ["", "<|eot_id|>"],
    trims: true,
    ..VICUNA_V1
};

/// The tokens that end an answer of Llama-3, whatever the files of a checkpoint name: the end of a turn and the end of a text.
const LLAMA_3_ENDS: [&str; 2] = ["<|eot_id|>", "<|end_of_text|>"];

/// The conversation form of a LLaVA on `language`, and the end tokens beside those that the checkpoint's files name. `tiles` says whether the model
/// is a LLaVA-NeXT.
///
/// # Errors
/// When the checkpoint at `path` is of a LLaVA that is asked in a form which is not known.
pub(super) fn chat_form(
    language: Language,
    tiles: bool,
    tokenizer: &Tokenizer,
    path: &Path,
) -> Result<(&'static ChatForm, Vec<u32>), Error> {
    let refuse = |what: &str| Err(Error::config(path, format!("{what}, which is asked in another form than those known here")));
    let has = |token: &str| tokenizer.special(token).is_some();
    if has("<|im_start|>") {
        return refuse("its tokenizer has `<|im_start|>`: a LLaVA that was trained on ChatML");
    }
    let llama_3 = has("<|start_header_id|>") && has("<|eot_id|>");
    match (language, llama_3) {
        (Language::Mistral, _) if tiles => Ok((&MISTRAL_INSTRUCT, Vec::new())),
        (Language::Mistral, _) => refuse("LLaVA-1.5 on Mistral (`llava_mistral`, or text_config.model_type `mistral`)"),
        (Language::Llama, true) if tiles => {
            Ok((&LLAMA_3, LLAMA_3_ENDS.iter().filter_map(|end| tokenizer.special(end)).collect()))
        }
        (Language::Llama, true) => refuse("LLaVA-1.5 on Llama-3"),
        (Language::Llama, false) => Ok((&VICUNA_V1, Vec::new())),
    }
}
