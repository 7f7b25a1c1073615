//! Detection of a checkpoint's layout and language model, by its config alone.

use std::path::Path;

use secateur_weights::printable;
use serde::{Deserialize, de::IgnoredAny};

use crate::Error;

/// The layout of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// The original layout (`liuhaotian/llava-v1.5-*`, `llava-v1.6-*`, `lmms-lab/llama3-llava-next-8b`): flat config, the tower named, and in a
    /// checkpoint of its own unless it was trained too.
    Original,
    /// Video-LLaVA's layout (`LanguageBind/Video-LLaVA-7B`): flat config, two towers named, each in a checkpoint of its own.
    Video,
    /// transformers' layout (`llava-hf/llava-1.5-*-hf`, `llava-v1.6-*-hf`): nested config, one set of shards.
    Hf,
}

/// The architecture of the language model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::model::families) enum Language {
    /// Llama and its descendants, Vicuna and Llama-3 among them.
    Llama,
    /// Mistral.
    Mistral,
}

/// The fields of a config that tell the layout and the language model.
#[derive(Deserialize)]
pub(in crate::model::families) struct Detect {
    model_type: Option<String>,
    architectures: Option<Vec<String>>,
    text_config: Option<TextDetect>,
    mm_vision_tower: Option<IgnoredAny>,
    mm_video_tower: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct TextDetect {
    model_type: Option<String>,
}

/// The values of `model_type` in configs of LLaVAs on Llama and on Mistral.
const MODEL_TYPES: [&str; 4] = ["llava", "llava_llama", "llava_mistral", "llava_next"];

/// The reason why transformers' conversion of Video-LLaVA is refused: its converter loads the towers into plain CLIP models and passes over tensors
/// that do not fit, so that attention over time is gone.
const NOT_VIDEO_LLAVA: &str = "a `video_llava` checkpoint of transformers is another network: its conversion left out the video \
                               tower's attention over time; use the original, LanguageBind/Video-LLaVA-7B";

impl Detect {
    /// The layout and the language model.
    ///
    /// # Errors
    /// When the config at `path` is that of no known layout, or of another family of models.
    pub(in crate::model::families) fn check(&self, path: &Path) -> Result<(Layout, Language), Error> {
        let kind = self.model_type.as_deref().unwrap_or("llava");
        if kind == "video_llava" {
            return Err(Error::config(path, NOT_VIDEO_LLAVA));
        }
        let layout = self.layout(kind, path)?;
        let language = match layout {
            Layout::Hf => self.text_config.as_ref().and_then(|text| text.model_type.as_deref()).unwrap_or("llama"),
            Layout::Original | Layout::Video if self.is_architecture("LlavaMistral") || kind == "llava_mistral" => "mistral",
            Layout::Original | Layout::Video => "llama",
        };
        let refuse = |field: &str, found: &str, known: &str| {
            let reason = format!("{field} is `{}`; LLaVAs on Llama and Mistral are known ({known})", printable(found));
            Err(Error::config(path, reason))
        };
        if !MODEL_TYPES.contains(&kind) {
            return refuse("model_type", kind, &MODEL_TYPES.join(", "));
        }
        match language {
            "llama" => Ok((layout, Language::Llama)),
            "mistral" => Ok((layout, Language::Mistral)),
            other => refuse("text_config.model_type", other, "llama, mistral"),
        }
    }

    /// Whether the config names an architecture that starts with `start`.
    fn is_architecture(&self, start: &str) -> bool {
        self.architectures.iter().flatten().any(|name| name.starts_with(start))
    }

    /// The layout, which the architectures decide first: original checkpoints may have a `text_config`, which other servers put there, and llava-hf
    /// ones `mm_*` fields of their training.
    fn layout(&self, kind: &str, path: &Path) -> Result<Layout, Error> {
        let flat = if self.mm_video_tower.is_some() { Layout::Video } else { Layout::Original };
        let is_named = self.mm_video_tower.is_some() || self.mm_vision_tower.is_some();
        let is_tower = kind.starts_with("clip") || kind.starts_with("LanguageBind");
        if is_tower {
            let reason = format!(
                "model_type is `{}`: a vision tower alone, and no model that answers; give a LLaVA model's folder or id (--model), and the tower with --clip, where a method needs its text side",
                printable(kind)
            );
            return Err(Error::config(path, reason));
        }
        if is_named && ["LlavaLlama", "LlavaMistral"].iter().any(|start| self.is_architecture(start)) {
            return Ok(flat);
        }
        if self.text_config.is_some() {
            return Ok(Layout::Hf);
        }
        if is_named {
            return Ok(flat);
        }
        if !MODEL_TYPES.contains(&kind) {
            let reason = format!(
                "model_type is `{}`: a language model or tower alone, without the other parts of a LLaVA",
                printable(kind)
            );
            return Err(Error::config(path, reason));
        }
        let reason = "neither a llava-hf config (`text_config`) nor an original LLaVA or Video-LLaVA config \
                      (`mm_vision_tower` and `mm_video_tower` are missing)";
        Err(Error::config(path, reason))
    }
}
