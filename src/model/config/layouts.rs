//! The two layouts that a LLaVA config comes in, 1.5 and NeXT.

use std::path::Path;

use serde::Deserialize;

use super::{ClipVisionConfig, LlavaConfig, Pictures, llama::RawLlama, missing, read_json};
use crate::{Error, image::Aspect, merge::Merge};

/// The flat config of the original checkpoints: Llama's fields and `mm_*` beside them.
#[derive(Deserialize)]
pub(in crate::model) struct OriginalConfig {
    #[serde(flatten)]
    text: RawLlama,
    mm_vision_tower: Option<String>,
    mm_image_tower: Option<String>,
    mm_video_tower: Option<String>,
    mm_projector_type: Option<String>,
    mm_hidden_size: Option<usize>,
    mm_vision_select_layer: Option<i64>,
    mm_vision_select_feature: Option<String>,
    image_aspect_ratio: Option<String>,
    image_grid_pinpoints: Option<RawResolutions>,
    mm_patch_merge_type: Option<String>,
    #[serde(default)]
    mm_use_im_start_end: bool,
    // Video-LLaVA's published config had the field under its training name for a while.
    #[serde(default)]
    mm_use_x_start_end: bool,
    #[serde(default)]
    unfreeze_mm_vision_tower: bool,
}

/// Resolutions as a list, or as a list in a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawResolutions {
    List(Vec<(usize, usize)>),
    Text(String),
}

impl RawResolutions {
    /// Resolutions of whole tiles, `side` pixels each.
    fn check(self, side: usize, path: &Path) -> Result<Vec<(usize, usize)>, Error> {
        let list = match self {
            Self::List(list) => list,
            // Python's tuples differ from JSON's lists in their brackets only.
            Self::Text(text) => serde_json::from_str(&text.replace('(', "[").replace(')', "]"))
                .map_err(|e| Error::config(path, format!("image_grid_pinpoints `{text}`: {e}")))?,
        };
        let whole = |pixels: usize| (side..=MAX_TILES * side).contains(&pixels) && pixels.is_multiple_of(side);
        if list.is_empty() || !list.iter().all(|&(width, height)| whole(width) && whole(height)) {
            let reason = format!("image_grid_pinpoints {list:?}: expected multiples of the tower's {side} pixels");
            return Err(Error::config(path, reason));
        }
        Ok(list)
    }
}

/// More tiles in a row than any model takes.
const MAX_TILES: usize = 16;

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

    /// The names of Video-LLaVA's two, for pictures and for videos.
    pub(in crate::model) fn towers(&self, path: &Path) -> Result<[&str; 2], Error> {
        let image = self.mm_image_tower.as_deref().ok_or_else(|| missing(path, "mm_image_tower"))?;
        Ok([image, self.mm_video_tower.as_deref().ok_or_else(|| missing(path, "mm_video_tower"))?])
    }

    /// The whole description, with the tower's from its own folder, and the video tower's where there is one.
    pub(in crate::model) fn check(
        self,
        path: &Path,
        tower_config: &Path,
        video_config: Option<&Path>,
    ) -> Result<LlavaConfig, Error> {
        let vision = read_json::<ClipConfig>(tower_config)?.vision_config;
        vision.check(tower_config)?;
        if vision.add_time_attn {
            let reason = "a tower for pictures with attention over time (add_time_attn); expected one without";
            return Err(Error::config(tower_config, reason));
        }
        let video = video_config.map(|path| video_tower(path, &vision)).transpose()?;
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
            || self.mm_use_x_start_end
        {
            return Err(Error::config(path, "expected mm_vision_select_feature patch and no mm_use_im_start_end"));
        }
        let layer = self.mm_vision_select_layer.ok_or_else(|| missing(path, "mm_vision_select_layer"))?;
        let pictures = match self.image_aspect_ratio.as_deref() {
            Some("pad") => Pictures::Single(Aspect::Pad),
            None | Some("square") => Pictures::Single(Aspect::Crop),
            Some("anyres") => {
                let resolutions = self.image_grid_pinpoints.ok_or_else(|| missing(path, "image_grid_pinpoints"))?;
                let merge = match self.mm_patch_merge_type.as_deref() {
                    None | Some("flat") => Merge::Flat,
                    Some("spatial") => Merge::Spatial,
                    Some("spatial_unpad") => Merge::SpatialUnpad,
                    Some(other) => {
                        return Err(Error::config(path, format!("mm_patch_merge_type `{other}` is unknown")));
                    }
                };
                Pictures::AnyRes { resolutions: resolutions.check(vision.image_size, path)?, merge }
            }
            Some(other) => {
                let reason = format!("image_aspect_ratio `{other}`; pad, square and anyres are known");
                return Err(Error::config(path, reason));
            }
        };
        Ok(LlavaConfig {
            read_layers: read_layers(layer, &vision, path)?,
            text: self.text.check(path, |name, _| Err(missing(path, name)))?,
            vision,
            video,
            pictures,
        })
    }

    /// Whether the tower was trained too, and lies in the checkpoint itself.
    pub(in crate::model) fn own_tower(&self) -> bool {
        self.unfreeze_mm_vision_tower
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
    model_type: Option<String>,
    image_grid_pinpoints: Option<RawResolutions>,
}

/// transformers' default for LLaVA-NeXT, which a config may leave out.
const NEXT_RESOLUTIONS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

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
        let pictures = if self.model_type.as_deref() == Some("llava_next") {
            // transformers reads them as height and width; they are LLaVA's list of width and height, and only that
            // order gives LLaVA's choice where two resolutions fit equally well.
            let resolutions = self.image_grid_pinpoints.unwrap_or(RawResolutions::List(NEXT_RESOLUTIONS.to_vec()));
            Pictures::AnyRes { resolutions: resolutions.check(vision.image_size, path)?, merge: Merge::SpatialUnpad }
        } else {
            // transformers' processor crops; LLaVA-1.5 was trained and evaluated on padded pictures, and that is
            // what the published figures are for.
            Pictures::Single(Aspect::Pad)
        };
        Ok(LlavaConfig {
            read_layers: read_layers(self.vision_feature_layer.unwrap_or(-2), &vision, path)?,
            text: self.text_config.check(path, |_, default| Ok(default))?,
            vision,
            video: None,
            pictures,
        })
    }
}

/// The description of a video tower, whose features go through the same projector as those of the tower `vision`.
fn video_tower(path: &Path, vision: &ClipVisionConfig) -> Result<ClipVisionConfig, Error> {
    let video = read_json::<ClipConfig>(path)?.vision_config;
    video.check(path)?;
    let sizes =
        |tower: &ClipVisionConfig| (tower.hidden_size, tower.image_size, tower.patch_size, tower.num_hidden_layers);
    if sizes(&video) != sizes(vision) {
        return Err(Error::config(
            path,
            format!(
                "the video tower has hidden size, picture size, patch size and layers {:?}, the picture tower {:?}; \
                 expected the same",
                sizes(&video),
                sizes(vision)
            ),
        ));
    }
    Ok(video)
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
