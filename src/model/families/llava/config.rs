//! The two layouts that a LLaVA config comes in, 1.5 and NeXT.

use std::path::Path;

use serde::Deserialize;

use crate::{
    Error,
    image::Aspect,
    model::{
        DecoderConfig,
        config::{Omitted, RawDecoder, from_json, missing, read_json, text_of_config},
        towers::clip::ClipVisionConfig,
    },
    sequence::Merge,
};

/// The shapes of a LLaVA's networks, and the images that they read.
#[derive(Clone, Debug)]
pub struct LlavaConfig {
    /// The vision tower's shape.
    pub vision: ClipVisionConfig,
    /// The decoder's shape.
    pub text: DecoderConfig,
    /// The number of the tower's layers that run before the features are read.
    pub vision_feature_layer: usize,
    /// The crops that an image is cut into.
    pub images: Images,
}

/// The crops of an image that a checkpoint was trained on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Images {
    /// A single crop, as in LLaVA-1.5.
    Single(Aspect),
    /// The whole image and tiles of it, as in LLaVA-NeXT.
    AnyRes {
        /// Width and height of the resolutions to choose from.
        resolutions: Vec<(usize, usize)>,
        /// The rule by which the crops become one sequence.
        merge: Merge,
    },
}

/// The flat config of the original checkpoints: Llama's fields and `mm_*` beside them.
pub(in crate::model::families) struct OriginalConfig {
    text: RawDecoder,
    mm: Multimodal,
}

/// The fields that LLaVA adds to Llama's.
#[derive(Deserialize)]
struct Multimodal {
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
    mm_use_im_start_end: Option<bool>,
    // Video-LLaVA's published config had the field under its training name for a while.
    mm_use_x_start_end: Option<bool>,
    unfreeze_mm_vision_tower: Option<bool>,
    // The resampler between tower and projector, in later LLaVAs.
    mm_resampler_type: Option<String>,
    // The parts that were trained, as later LLaVAs write them: `mm_vision_tower,mm_mlp_adapter,mm_language_model`.
    mm_tunable_parts: Option<String>,
}

/// Resolutions as a list, or as a list in a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawResolutions {
    List(Vec<(usize, usize)>),
    Text(String),
}

impl RawResolutions {
    /// The checked resolutions, all of whole tiles of `side` pixels.
    fn check(self, side: usize, path: &Path) -> Result<Vec<(usize, usize)>, Error> {
        let list = match self {
            Self::List(list) => list,
            // Python's tuples differ from JSON's lists in their brackets only.
            Self::Text(text) => serde_json::from_str(&text.replace('(', "[").replace(')', "]")).map_err(|_| {
                let text = secateur_weights::printable(&text);
                Error::config(path, format!("image_grid_pinpoints is `{text}`; a list of pairs of numbers is expected"))
            })?,
        };
        check_resolutions(list, "image_grid_pinpoints", side, path)
    }
}

/// Refuses resolutions that are not of whole tiles of `side` pixels; `field` has them.
pub(super) fn check_resolutions(
    list: Vec<(usize, usize)>,
    field: &str,
    side: usize,
    path: &Path,
) -> Result<Vec<(usize, usize)>, Error> {
    let whole = |pixels: usize| (side..=MAX_TILES * side).contains(&pixels) && pixels.is_multiple_of(side);
    if list.is_empty() || !list.iter().all(|&(width, height)| whole(width) && whole(height)) {
        let reason = format!("{field} {list:?}: expected multiples of the tower's {side} pixels");
        return Err(Error::config(path, reason));
    }
    Ok(list)
}

/// A limit on the tiles in a row, above that of any model.
const MAX_TILES: usize = 16;

/// A CLIP checkpoint's config, of which the vision side matters here.
#[derive(Deserialize)]
pub(in crate::model::families) struct ClipConfig {
    pub(in crate::model::families) vision_config: ClipVisionConfig,
}

impl OriginalConfig {
    pub(in crate::model::families) fn read(path: &Path) -> Result<Self, Error> {
        let text = text_of_config(path)?;
        Ok(Self { text: from_json(path, &text)?, mm: from_json(path, &text)? })
    }

    /// The name of the tower's own checkpoint.
    pub(in crate::model::families) fn tower(&self, path: &Path) -> Result<&str, Error> {
        self.mm.mm_vision_tower.as_deref().ok_or_else(|| missing(path, "mm_vision_tower"))
    }

    /// The names of the checkpoints of Video-LLaVA's two towers, for images and for videos.
    pub(in crate::model::families) fn towers(&self, path: &Path) -> Result<[&str; 2], Error> {
        let image = self.mm.mm_image_tower.as_deref().ok_or_else(|| missing(path, "mm_image_tower"))?;
        Ok([image, self.mm.mm_video_tower.as_deref().ok_or_else(|| missing(path, "mm_video_tower"))?])
    }

    /// The checked config, with the tower's own config read from `tower_config`.
    pub(in crate::model::families) fn check(self, path: &Path, tower_config: &Path) -> Result<LlavaConfig, Error> {
        let vision = read_json::<ClipConfig>(tower_config)?.vision_config;
        vision.check(tower_config)?;
        if vision.add_time_attn {
            let reason = "a tower for images with attention over time (add_time_attn); expected one without";
            return Err(Error::config(tower_config, reason));
        }
        let mm = self.mm;
        mm.check(path)?;
        if let Some(size) = mm.mm_hidden_size.filter(|size| *size != vision.hidden_size) {
            let (tower, expected) = (tower_config.display(), vision.hidden_size);
            return Err(Error::config(path, format!("mm_hidden_size is {size}, but the tower {tower} has {expected}")));
        }
        let layer = mm.mm_vision_select_layer.ok_or_else(|| missing(path, "mm_vision_select_layer"))?;
        let images = match mm.image_aspect_ratio.as_deref() {
            Some("pad") => Images::Single(Aspect::Pad),
            None | Some("square") => Images::Single(Aspect::Crop),
            Some("anyres") => {
                let resolutions = mm.image_grid_pinpoints.ok_or_else(|| missing(path, "image_grid_pinpoints"))?;
                let merge = match mm.mm_patch_merge_type.as_deref() {
                    None | Some("flat") => Merge::Flat,
                    Some("spatial") => Merge::Spatial,
                    Some("spatial_unpad") => Merge::SpatialUnpad,
                    Some(other) => {
                        let other = secateur_weights::printable(other);
                        let reason =
                            format!("mm_patch_merge_type is `{other}`; flat, spatial and spatial_unpad are known");
                        return Err(Error::config(path, reason));
                    }
                };
                Images::AnyRes { resolutions: resolutions.check(vision.image_size, path)?, merge }
            }
            Some(other) => {
                let other = secateur_weights::printable(other);
                let reason = format!("image_aspect_ratio is `{other}`; pad, square and anyres are known");
                return Err(Error::config(path, reason));
            }
        };
        Ok(LlavaConfig {
            vision_feature_layer: vision_feature_layer(layer, "mm_vision_select_layer", &vision, path)?,
            text: self.text.check(path, Omitted::Refused)?,
            vision,
            images,
        })
    }

    /// Whether the tower was trained too, and lies in the checkpoint itself.
    pub(in crate::model::families) fn own_tower(&self) -> bool {
        let parts = self.mm.mm_tunable_parts.as_deref().unwrap_or_default();
        let tuned = parts.split(',').any(|part| part.trim() == "mm_vision_tower");
        self.mm.unfreeze_mm_vision_tower == Some(true) || tuned
    }
}

impl Multimodal {
    /// Refuses settings that ask for something other than LLaVA's own way, with an error that names the first one.
    fn check(&self, path: &Path) -> Result<(), Error> {
        let refuse = |reason: String| Err(Error::config(path, reason));
        match self.mm_projector_type.as_deref() {
            Some("mlp2x_gelu") => {}
            Some(other) => {
                return refuse(format!(
                    "mm_projector_type is `{}`; mlp2x_gelu is known",
                    secateur_weights::printable(other)
                ));
            }
            None => return Err(missing(path, "mm_projector_type")),
        }
        if let Some(resampler) = self.mm_resampler_type.as_deref().filter(|resampler| !resampler.is_empty()) {
            return refuse(format!("mm_resampler_type is `{}`; none is known", secateur_weights::printable(resampler)));
        }
        if let Some(feature) = self.mm_vision_select_feature.as_deref().filter(|feature| *feature != "patch") {
            return refuse(format!(
                "mm_vision_select_feature is `{}`; patch is known",
                secateur_weights::printable(feature)
            ));
        }
        for (field, value) in
            [("mm_use_im_start_end", self.mm_use_im_start_end), ("mm_use_x_start_end", self.mm_use_x_start_end)]
        {
            if value == Some(true) {
                return refuse(format!("{field} is true; only false is known"));
            }
        }
        Ok(())
    }
}

/// The nested config of llava-hf checkpoints, which leaves out whatever equals transformers' defaults.
#[derive(Deserialize)]
pub(in crate::model::families) struct HfConfig {
    text_config: RawDecoder,
    vision_config: Option<ClipVisionConfig>,
    projector_hidden_act: Option<String>,
    vision_feature_layer: Option<FeatureLayer>,
    vision_feature_select_strategy: Option<String>,
    model_type: Option<String>,
    image_grid_pinpoints: Option<RawResolutions>,
}

/// The layer that features are read from, or a list of layers whose features are joined.
#[derive(Deserialize)]
#[serde(untagged)]
enum FeatureLayer {
    One(i64),
    Several(Vec<i64>),
}

impl FeatureLayer {
    fn check(&self, path: &Path) -> Result<i64, Error> {
        match self {
            Self::One(layer) => Ok(*layer),
            Self::Several(layers) => match &layers[..] {
                [layer] => Ok(*layer),
                layers => Err(Error::config(
                    path,
                    format!("vision_feature_layer is {layers:?}; one layer is read, and no more"),
                )),
            },
        }
    }
}

/// transformers' default for LLaVA-NeXT, which a config may leave out.
const NEXT_RESOLUTIONS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

impl HfConfig {
    pub(in crate::model::families) fn check(self, path: &Path) -> Result<LlavaConfig, Error> {
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
        for (field, value, known) in [
            ("projector_hidden_act", &self.projector_hidden_act, "gelu"),
            ("vision_feature_select_strategy", &self.vision_feature_select_strategy, "default"),
        ] {
            if let Some(value) = value.as_deref().filter(|value| *value != known) {
                return Err(Error::config(
                    path,
                    format!("{field} is `{}`; {known} is known", secateur_weights::printable(value)),
                ));
            }
        }
        let layer = self.vision_feature_layer.as_ref().map_or(Ok(-2), |layer| layer.check(path))?;
        let images = if self.model_type.as_deref() == Some("llava_next") {
            // transformers reads the resolutions as height and width; they are LLaVA's list of width and height, and only that order gives LLaVA's
            // choice where two resolutions fit equally well.
            let resolutions = self.image_grid_pinpoints.unwrap_or(RawResolutions::List(NEXT_RESOLUTIONS.to_vec()));
            Images::AnyRes { resolutions: resolutions.check(vision.image_size, path)?, merge: Merge::SpatialUnpad }
        } else {
            // transformers' processor crops; LLaVA-1.5 was trained and evaluated on padded images, and the published figures are for those.
            Images::Single(Aspect::Pad)
        };
        Ok(LlavaConfig {
            vision_feature_layer: vision_feature_layer(layer, "vision_feature_layer", &vision, path)?,
            text: self.text_config.check(path, Omitted::Default)?,
            vision,
            images,
        })
    }
}

/// The number of layers before the features, from an index `layer` into `hidden_states`: that counts the embedding as entry 0, and negative indices
/// from the end.
fn vision_feature_layer(layer: i64, field: &str, vision: &ClipVisionConfig, path: &Path) -> Result<usize, Error> {
    let count = vision.num_hidden_layers as i64;
    let index = if layer < 0 { (count + 1).saturating_add(layer) } else { layer };
    if (1..=count).contains(&index) {
        return Ok(index as usize);
    }
    Err(Error::config(path, format!("{field} is {layer}, which is not one of the tower's {count} layers")))
}
