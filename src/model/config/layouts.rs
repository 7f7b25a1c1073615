//! The two layouts that a LLaVA-1.5 config comes in.

use std::path::Path;

use serde::Deserialize;

use super::{ClipVisionConfig, LlavaConfig, llama::RawLlama, missing, read_json};
use crate::{Error, image::Aspect};

/// The flat config of the original checkpoints: Llama's fields and `mm_*` beside them.
#[derive(Deserialize)]
pub(in crate::model) struct OriginalConfig {
    #[serde(flatten)]
    text: RawLlama,
    mm_vision_tower: Option<String>,
    mm_projector_type: Option<String>,
    mm_hidden_size: Option<usize>,
    mm_vision_select_layer: Option<i64>,
    mm_vision_select_feature: Option<String>,
    image_aspect_ratio: Option<String>,
    #[serde(default)]
    mm_use_im_start_end: bool,
}

/// A CLIP checkpoint's config, of which the vision side matters here.
#[derive(Deserialize)]
struct ClipConfig {
    vision_config: ClipVisionConfig,
}

impl OriginalConfig {
    /// The name of the tower's own checkpoint.
    pub(in crate::model) fn tower(&self, path: &Path) -> Result<&str, Error> {
        self.mm_vision_tower.as_deref().ok_or_else(|| missing(path, "mm_vision_tower"))
    }

    /// The whole description, with the tower's from its own folder.
    pub(in crate::model) fn check(self, path: &Path, tower_config: &Path) -> Result<LlavaConfig, Error> {
        let vision = read_json::<ClipConfig>(tower_config)?.vision_config;
        vision.check(tower_config)?;
        match self.mm_projector_type.as_deref() {
            Some("mlp2x_gelu") => {}
            Some(other) => {
                return Err(Error::config(path, format!("mm_projector_type `{other}`; only mlp2x_gelu is known")));
            }
            None => return Err(missing(path, "mm_projector_type")),
        }
        if self.mm_hidden_size.is_some_and(|size| size != vision.hidden_size) {
            return Err(Error::config(
                path,
                format!(
                    "mm_hidden_size is {}, but the tower {} has {}",
                    self.mm_hidden_size.unwrap_or_default(),
                    tower_config.display(),
                    vision.hidden_size
                ),
            ));
        }
        if self.mm_vision_select_feature.as_deref().is_some_and(|feature| feature != "patch")
            || self.mm_use_im_start_end
        {
            return Err(Error::config(path, "expected mm_vision_select_feature patch and no mm_use_im_start_end"));
        }
        let layer = self.mm_vision_select_layer.ok_or_else(|| missing(path, "mm_vision_select_layer"))?;
        let aspect = match self.image_aspect_ratio.as_deref() {
            Some("pad") => Aspect::Pad,
            None | Some("square") => Aspect::Crop,
            Some(other) => {
                return Err(Error::config(path, format!("image_aspect_ratio `{other}`; pad and square are known")));
            }
        };
        Ok(LlavaConfig {
            read_layers: read_layers(layer, &vision, path)?,
            text: self.text.check(path, |name, _| Err(missing(path, name)))?,
            vision,
            aspect,
        })
    }
}

/// The nested config of llava-hf checkpoints, which leaves out whatever equals transformers' defaults.
#[derive(Deserialize)]
pub(in crate::model) struct HfConfig {
    text_config: RawLlama,
    vision_config: Option<ClipVisionConfig>,
    projector_hidden_act: Option<String>,
    vision_feature_layer: Option<i64>,
    vision_feature_select_strategy: Option<String>,
}

impl HfConfig {
    pub(in crate::model) fn check(self, path: &Path) -> Result<LlavaConfig, Error> {
        // LlavaConfig's own default tower is CLIP-L at 336 pixels, not CLIPVisionConfig's default.
        let vision = self.vision_config.unwrap_or_else(|| ClipVisionConfig {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            image_size: 336,
            patch_size: 14,
            ..ClipVisionConfig::default()
        });
        vision.check(path)?;
        if self.projector_hidden_act.is_some_and(|act| act != "gelu")
            || self.vision_feature_select_strategy.is_some_and(|strategy| strategy != "default")
        {
            return Err(Error::config(
                path,
                "expected projector_hidden_act gelu and vision_feature_select_strategy default",
            ));
        }
        Ok(LlavaConfig {
            read_layers: read_layers(self.vision_feature_layer.unwrap_or(-2), &vision, path)?,
            text: self.text_config.check(path, |_, default| Ok(default))?,
            vision,
            // transformers' processor crops; LLaVA-1.5 was trained and evaluated on padded pictures, and that is
            // what the published figures are for.
            aspect: Aspect::Pad,
        })
    }
}

/// `hidden_states[layer]` counts the embedding as entry 0, and negative ones from the end.
fn read_layers(layer: i64, vision: &ClipVisionConfig, path: &Path) -> Result<usize, Error> {
    let count = vision.num_hidden_layers as i64;
    let index = if layer < 0 { count + 1 + layer } else { layer };
    if (1..=count).contains(&index) {
        return Ok(index as usize);
    }
    Err(Error::config(path, format!("vision layer {layer} is not one of the {count} layers of the tower")))
}
