//! Which kind of checkpoint a config is of.

use std::path::Path;

use secateur_weights::printable;
use serde::Deserialize;

use crate::Error;

/// How a checkpoint is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `liuhaotian/llava-v1.5-*`, `llava-v1.6-*`: flat config, the tower named, and in a checkpoint of its own unless it
    /// was trained too.
    Original,
    /// `LanguageBind/Video-LLaVA-7B`: flat config, two towers named, each in a checkpoint of its own.
    Video,
    /// `llava-hf/llava-1.5-*-hf`, `llava-v1.6-*-hf`: nested config, one set of shards.
    Hf,
}

/// The fields that tell.
#[derive(Deserialize)]
pub(in crate::model) struct Signs {
    model_type: Option<String>,
    text_config: Option<TextSigns>,
    mm_vision_tower: Option<serde::de::IgnoredAny>,
    mm_video_tower: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct TextSigns {
    model_type: Option<String>,
}

/// What LLaVAs on Vicuna call themselves. Others have the same fields and tensors (`llava_mistral`), but another prompt. On
/// other Llamas there are some that call themselves so, too.
const FAMILIES: [&str; 3] = ["llava", "llava_llama", "llava_next"];

/// Why transformers' conversion of Video-LLaVA is refused: its converter loads the towers into plain CLIP models and passes over
/// what does not fit, so that attention over time is gone.
const NOT_THE_SAME: &str = "a `video_llava` checkpoint of transformers is another network: its conversion left out the video \
                            tower's attention over time; use the original, LanguageBind/Video-LLaVA-7B";

impl Signs {
    /// The layout.
    ///
    /// # Errors
    /// When the config at `path` is that of no known layout, or of another family of models.
    pub(in crate::model) fn layout(&self, path: &Path) -> Result<Layout, Error> {
        let family = self.model_type.as_deref().unwrap_or("llava");
        let text = self.text_config.as_ref().and_then(|text| text.model_type.as_deref()).unwrap_or("llama");
        let layout = if family == "video_llava" {
            return Err(Error::config(path, NOT_THE_SAME));
        } else if self.text_config.is_some() {
            Layout::Hf
        } else if self.mm_video_tower.is_some() {
            Layout::Video
        } else if self.mm_vision_tower.is_some() {
            Layout::Original
        } else if !FAMILIES.contains(&family) && !family.starts_with("clip") && !family.starts_with("LanguageBind") {
            let family = printable(family);
            let reason = format!(
                "model_type is `{family}`: a language model or tower alone, without the other parts of a LLaVA"
            );
            return Err(Error::config(path, reason));
        } else if family.starts_with("clip") || family.starts_with("LanguageBind") {
            Layout::Hf
        } else {
            let reason = "neither a llava-hf config (`text_config`) nor an original LLaVA or Video-LLaVA config \
                          (`mm_vision_tower` and `mm_video_tower` are missing)";
            return Err(Error::config(path, reason));
        };
        if family.starts_with("clip") || family.starts_with("LanguageBind") {
            let reason = format!(
                "model_type is `{}`: a vision tower alone, and no model that answers; give a LLaVA model's folder or id (--model), and the tower with --clip, where a method needs its text side",
                printable(family)
            );
            return Err(Error::config(path, reason));
        }
        if !FAMILIES.contains(&family) || text != "llama" {
            let (field, found, known) = match text {
                "llama" => ("model_type", family, FAMILIES.join(", ")),
                _ => ("text_config.model_type", text, "llama".to_owned()),
            };
            let reason = format!(
                "{field} is `{}`; LLaVAs on Vicuna are known ({known}), others are asked in another form",
                printable(found)
            );
            return Err(Error::config(path, reason));
        }
        Ok(layout)
    }
}
