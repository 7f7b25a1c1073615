//! `config.json` of both checkpoint layouts, read with serde and turned into one checked description.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};

use crate::{Error, image::Aspect};

/// All that the networks and the prompt need to know of a checkpoint.
#[derive(Clone, Debug)]
pub struct LlavaConfig {
    /// The vision tower.
    pub vision: ClipVisionConfig,
    /// The language model.
    pub text: LlamaConfig,
    /// How many of the tower's layers run before the features are read.
    pub read_layers: usize,
    /// What is done to pictures that are not square.
    pub aspect: Aspect,
}

/// The vision tower's shape.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers in the checkpoint.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Side of the picture in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Added to the variance in norms.
    pub layer_norm_eps: f64,
    hidden_act: String,
}

/// transformers' `CLIPVisionConfig` defaults: what a config omits has these values.
impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            image_size: 224,
            patch_size: 32,
            layer_norm_eps: 1e-5,
            hidden_act: "quick_gelu".to_owned(),
        }
    }
}

impl ClipVisionConfig {
    /// Patches of one crop.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    fn check(&self, path: &Path) -> Result<(), Error> {
        let sound = self.patch_size > 0
            && self.image_size >= self.patch_size
            && self.image_size <= MAX_SIDE
            && divides(self.num_attention_heads, self.hidden_size)
            && (1..=MAX_LAYERS).contains(&self.num_hidden_layers);
        match (sound, self.hidden_act.as_str()) {
            (true, "quick_gelu") => Ok(()),
            (true, other) => Err(Error::config(path, format!("vision hidden_act `{other}`; only quick_gelu is known"))),
            (false, _) => Err(Error::config(
                path,
                "the vision tower's sizes do not divide into heads and patches, or are out of all proportion",
            )),
        }
    }
}

/// The language model's shape.
#[derive(Clone, Debug)]
pub struct LlamaConfig {
    /// Rows of the embedding, padding included.
    pub vocab_size: usize,
    /// Width of a token.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; fewer than query heads with grouped attention.
    pub num_key_value_heads: usize,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// What positions are multiplied by: 1, or 1/factor with linear scaling.
    pub position_scale: f32,
    /// The longest sequence that the model was made for.
    pub max_position_embeddings: usize,
}

impl LlamaConfig {
    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }
}

/// Llama's fields as they are written; what is `None` was omitted.
#[derive(Deserialize)]
struct RawLlama {
    vocab_size: Option<usize>,
    hidden_size: Option<usize>,
    intermediate_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    num_key_value_heads: Option<usize>,
    rms_norm_eps: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<RawScaling>,
    max_position_embeddings: Option<usize>,
    hidden_act: Option<String>,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

#[derive(Deserialize)]
struct RawScaling {
    #[serde(rename = "type", alias = "rope_type")]
    kind: String,
    factor: Option<f64>,
}

impl RawLlama {
    /// `omitted` decides what a missing size means: the Llama-7B value in nested configs, an error in flat ones.
    fn check(self, path: &Path, omitted: impl Fn(&str, usize) -> Result<usize, Error>) -> Result<LlamaConfig, Error> {
        let size = |name, value: Option<usize>, default| value.map_or_else(|| omitted(name, default), Ok);
        let heads = size("num_attention_heads", self.num_attention_heads, 32)?;
        let position_scale = match &self.rope_scaling {
            None => 1.0,
            Some(RawScaling { kind, factor: Some(factor) })
                if kind == "linear" && factor.is_finite() && *factor > 0.0 =>
            {
                (1.0 / factor) as f32
            }
            Some(RawScaling { kind, .. }) => {
                return Err(Error::config(
                    path,
                    format!("rope_scaling `{kind}`; only linear with a factor above 0 is known"),
                ));
            }
        };
        let config = LlamaConfig {
            vocab_size: size("vocab_size", self.vocab_size, 32_000)?,
            hidden_size: size("hidden_size", self.hidden_size, 4096)?,
            intermediate_size: size("intermediate_size", self.intermediate_size, 11_008)?,
            num_hidden_layers: size("num_hidden_layers", self.num_hidden_layers, 32)?,
            num_attention_heads: heads,
            num_key_value_heads: self.num_key_value_heads.unwrap_or(heads),
            rms_norm_eps: self.rms_norm_eps.unwrap_or(1e-6),
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            position_scale,
            max_position_embeddings: self.max_position_embeddings.unwrap_or(2048),
        };
        if !divides(heads, config.hidden_size)
            || !divides(config.num_key_value_heads, heads)
            || !config.head_dim().is_multiple_of(2)
            || !(1..=MAX_LAYERS).contains(&config.num_hidden_layers)
        {
            return Err(Error::config(
                path,
                "hidden_size, heads and key/value heads do not divide, or there are no layers, or over 1,024",
            ));
        }
        if self.hidden_act.as_deref().is_some_and(|act| act != "silu")
            || self.attention_bias
            || self.tie_word_embeddings
        {
            return Err(Error::config(path, "expected Llama's silu, no attention_bias and no tie_word_embeddings"));
        }
        Ok(config)
    }
}

/// More layers than any model has: a config that says more is wrong, and would be built before that shows.
const MAX_LAYERS: usize = 1024;
/// More pixels a side than any tower reads.
const MAX_SIDE: usize = 16_384;

fn divides(part: usize, whole: usize) -> bool {
    part > 0 && whole.is_multiple_of(part)
}

/// The flat config of the original checkpoints: Llama's fields and `mm_*` beside them.
#[derive(Deserialize)]
pub(super) struct OriginalConfig {
    #[serde(flatten)]
    text: RawLlama,
    pub(super) mm_vision_tower: Option<String>,
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
    pub(super) fn tower(&self, path: &Path) -> Result<&str, Error> {
        self.mm_vision_tower.as_deref().ok_or_else(|| missing(path, "mm_vision_tower"))
    }

    /// The whole description, with the tower's from its own folder.
    pub(super) fn check(self, path: &Path, tower_config: &Path) -> Result<LlavaConfig, Error> {
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
pub(super) struct HfConfig {
    text_config: RawLlama,
    vision_config: Option<ClipVisionConfig>,
    projector_hidden_act: Option<String>,
    vision_feature_layer: Option<i64>,
    vision_feature_select_strategy: Option<String>,
}

impl HfConfig {
    pub(super) fn check(self, path: &Path) -> Result<LlavaConfig, Error> {
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

fn missing(path: &Path, field: &str) -> Error {
    Error::config(path, format!("the field `{field}` is missing"))
}

/// Reads a JSON file; the error names the field that is missing or wrong.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "the configuration cannot be read"))?;
    serde_json::from_str(&text).map_err(|e| Error::config(path, e.to_string()))
}
