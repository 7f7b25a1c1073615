//! LLaVA-1.5 and LLaVA-NeXT as pairs of GGUF files: their settings, and the names of their tensors.
//!
//! llama.cpp's own converter leaves out the last layer of CLIP's tower, its last norm, and the projection into the space that
//! CLIP shares with texts. The features that LLaVA reads are those of the last layer that is there.

mod export;
mod tensors;

use std::path::Path;

pub(super) use export::files;
use secateur_weights::{Gguf, Value, printable};
pub(super) use tensors::tensors;

use super::{Images, Language, LlavaConfig, config::check_resolutions};
use crate::{
    Error,
    image::{Aspect, ClipProcessor},
    model::{DecoderConfig, Pair, RopeConfig, RopeScaling, towers::clip::ClipVisionConfig},
    sequence::Merge,
};

/// The setting with the form of conversations.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// The setting with the tower's layer that features are read from.
const FEATURE_LAYER: &str = "clip.vision.feature_layer";

/// The networks' shapes, the image processor's settings, and the language model.
pub(super) fn read(pair: &Pair) -> Result<(LlavaConfig, ClipProcessor, Language), Error> {
    let Pair { decoder, mmproj } = pair;
    let text = decoder_config(decoder)?;
    let (vision, vision_feature_layer) = vision_config(mmproj)?;
    let width = columns(mmproj, "mm.2.weight", 0)?;
    if width != text.hidden_size {
        let (path, expected) = (decoder.path.display(), text.hidden_size);
        let reason =
            format!("it projects to a width of {width} (mm.2.weight), and {path} has {expected} (llama.embedding_length): of another model");
        return Err(Error::config(&mmproj.path, reason));
    }
    let (processor, images) = (processor(mmproj, vision.image_size)?, images(mmproj, vision.image_size)?);
    let language = language(decoder, &text)?;
    Ok((LlavaConfig { vision, text, vision_feature_layer, images }, processor, language))
}

/// A setting that must be there.
fn needed(file: &Gguf, key: &str) -> Result<usize, Error> {
    Ok(file.count(key)?.ok_or_else(|| file.missing(key))?)
}

/// The size of a dimension of a tensor.
fn columns(file: &Gguf, name: &str, dimension: usize) -> Result<usize, Error> {
    let tensor = file.tensors.get(name).ok_or_else(|| missing_tensor(file, name))?;
    tensor.shape.get(dimension).copied().ok_or_else(|| {
        Error::config(&file.path, format!("the tensor `{name}` has the shape {:?}, with too few dimensions", tensor.shape))
    })
}

fn missing_tensor(file: &Gguf, name: &str) -> Error {
    Error::config(&file.path, format!("the tensor `{name}` is missing"))
}

fn decoder_config(file: &Gguf) -> Result<DecoderConfig, Error> {
    let kind = file.text("general.architecture")?.unwrap_or_default();
    if kind != "llama" {
        let reason = format!("architecture `{}`; LLaVAs on Llama and Mistral (architecture llama) are known", printable(kind));
        return Err(Error::config(&file.path, reason));
    }
    let heads = needed(file, "llama.attention.head_count")?;
    let hidden_size = needed(file, "llama.embedding_length")?;
    let usual = hidden_size / heads.max(1);
    let head_dim = file.count("llama.attention.key_length")?.unwrap_or(usual);
    for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
        if let Some(other) = file.count(key)?.filter(|other| *other != head_dim) {
            let reason = format!("the setting `{key}` is {other}, and a head is {head_dim} wide; both must be equal");
            return Err(Error::config(&file.path, reason));
        }
    }
    let epsilon = "llama.attention.layer_norm_rms_epsilon";
    let config = DecoderConfig {
        vocab_size: columns(file, "token_embd.weight", 0)?,
        hidden_size,
        intermediate_size: needed(file, "llama.feed_forward_length")?,
        num_hidden_layers: needed(file, "llama.block_count")?,
        num_attention_heads: heads,
        num_key_value_heads: file.count("llama.attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        rms_norm_eps: file.number(epsilon)?.ok_or_else(|| file.missing(epsilon))?,
        rope: rope(file)?,
        max_position_embeddings: needed(file, "llama.context_length")?,
        tied: !file.tensors.contains_key("output.weight"),
        ..DecoderConfig::default()
    };
    config.check_sizes(&file.path)?;
    Ok(config)
}

fn rope(file: &Gguf) -> Result<RopeConfig, Error> {
    let theta = file.number("llama.rope.freq_base")?.unwrap_or(RopeConfig::default().theta);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(Error::config(&file.path, format!("the setting `llama.rope.freq_base` is {theta}; a number above 0 is expected")));
    }
    let kind = file.text("llama.rope.scaling.type")?.unwrap_or("none");
    let factor = match file.number("llama.rope.scaling.factor")? {
        Some(factor) => Some(factor),
        // The key of older files.
        None => file.number("llama.rope.scale_linear")?,
    };
    let scaling = match (kind, factor) {
        ("none", None) => RopeScaling::None,
        ("none" | "linear", Some(factor)) if factor >= 1.0 && factor.is_finite() => RopeScaling::Linear(factor),
        (other, _) => {
            let reason = format!("rotary positions are scaled by `{}`; linear is known, with a factor from 1 on", printable(other));
            return Err(Error::config(&file.path, reason));
        }
    };
    Ok(RopeConfig { theta, scaling, sections: None })
}

/// The tower's shape, and the number of its layers that run before the features are read.
fn vision_config(file: &Gguf) -> Result<(ClipVisionConfig, usize), Error> {
    let refuse = |reason: String| Err(Error::config(&file.path, reason));
    if file.flag("clip.has_vision_encoder")? == Some(false) {
        return refuse("the setting `clip.has_vision_encoder` is false: it holds no image encoder".to_owned());
    }
    // Files of 2023 do not say what their projector is.
    if let Some(kind) = file.text("clip.projector_type")?.filter(|kind| *kind != "mlp") {
        return refuse(format!("the setting `clip.projector_type` is `{}`; mlp, LLaVA's projector, is known", printable(kind)));
    }
    let size = |key: &str| needed(file, &format!("clip.vision.{key}"));
    let epsilon = "clip.vision.attention.layer_norm_epsilon";
    let layers = size("block_count")?;
    let vision = ClipVisionConfig {
        hidden_size: size("embedding_length")?,
        intermediate_size: size("feed_forward_length")?,
        num_hidden_layers: layers,
        num_attention_heads: size("attention.head_count")?,
        image_size: size("image_size")?,
        patch_size: size("patch_size")?,
        layer_norm_eps: file.number(epsilon)?.ok_or_else(|| file.missing(epsilon))?,
        hidden_act: if file.flag("clip.use_gelu")? == Some(true) { "gelu" } else { "quick_gelu" }.to_owned(),
        ..ClipVisionConfig::default()
    };
    vision.check(&file.path)?;
    let key = FEATURE_LAYER;
    let read = file.list(key, "a list of layers", |value| if let Value::Int(layer) = value { Some(*layer) } else { None })?;
    match read.as_deref() {
        None => Ok((vision, layers)),
        Some([layer]) if (1..=layers as i128).contains(layer) => Ok((vision, *layer as usize)),
        Some(other) => refuse(format!("the setting `{key}` is {other:?}; one layer from 1 to {layers} is read, and no more")),
    }
}

fn processor(file: &Gguf, size: usize) -> Result<ClipProcessor, Error> {
    let number = |value: &Value| if let Value::Float(number) = value { Some(*number) } else { None };
    let three = |key: &str, is_possible: fn(f64) -> bool| {
        let list = file.list(key, "a list of numbers", number)?.ok_or_else(|| file.missing(key))?;
        let numbers: Option<[f64; 3]> = list[..].try_into().ok().filter(|list: &[f64; 3]| list.iter().all(|n| is_possible(*n)));
        numbers.ok_or_else(|| {
            Error::config(&file.path, format!("the setting `{key}` is {list:?}; three numbers from 0 to 1 are expected"))
        })
    };
    let mean = three("clip.vision.image_mean", |mean| (0.0..=1.0).contains(&mean))?;
    let std = three("clip.vision.image_std", |std| std > 0.0 && (std as f32).is_normal())?;
    Ok(ClipProcessor::clip(size, mean, std))
}

fn images(file: &Gguf, side: usize) -> Result<Images, Error> {
    let refuse = |reason: String| Err(Error::config(&file.path, reason));
    let key = "clip.vision.image_grid_pinpoints";
    let count = |value: &Value| if let Value::Int(n) = value { usize::try_from(*n).ok() } else { None };
    let pinpoints = file.list(key, "a list of whole numbers", count)?;
    match (file.text("clip.vision.image_aspect_ratio")?.unwrap_or("pad"), pinpoints) {
        ("pad", None) => Ok(Images::Single(Aspect::Pad)),
        ("anyres" | "pad", Some(pinpoints)) => {
            if !pinpoints.len().is_multiple_of(2) {
                return refuse(format!("the setting `{key}` has {} numbers; pairs of width and height are expected", pinpoints.len()));
            }
            let resolutions = pinpoints.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let merge = match file.text("clip.vision.mm_patch_merge_type")?.unwrap_or("flat") {
                "flat" => Merge::Flat,
                "spatial" => Merge::Spatial,
                "spatial_unpad" => Merge::SpatialUnpad,
                other => {
                    let other = printable(other);
                    return refuse(format!("the setting `clip.vision.mm_patch_merge_type` is `{other}`; flat, spatial and spatial_unpad are known"));
                }
            };
            Ok(Images::AnyRes { resolutions: check_resolutions(resolutions, key, side, &file.path)?, merge })
        }
        ("anyres", None) => Err(file.missing(key).into()),
        (other, _) => {
            let other = printable(other);
            refuse(format!("the setting `clip.vision.image_aspect_ratio` is `{other}`; pad and anyres are known"))
        }
    }
}

/// Whether the language model is a Mistral: its file has Llama's architecture, and only its template, its name or its shape tell.
fn language(file: &Gguf, config: &DecoderConfig) -> Result<Language, Error> {
    if let Some(template) = file.text(CHAT_TEMPLATE)? {
        return Ok(if template.contains("[INST]") && !template.contains("<<SYS>>") { Language::Mistral } else { Language::Llama });
    }
    let named = ["general.name", "general.basename"].iter().map(|key| file.text(key)).collect::<Result<Vec<_>, _>>()?;
    let own = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_named = |word: &str| named.iter().flatten().chain([&&own[..]]).any(|name| name.to_lowercase().contains(word));
    let is_shaped = (config.intermediate_size, config.num_key_value_heads) == (14_336, 8) && config.vocab_size < 40_000;
    Ok(if is_named("mistral") || is_shaped && !is_named("vicuna") { Language::Mistral } else { Language::Llama })
}

/// The reason why methods that read all of the tower's layers cannot run, where the file lacks the last one.
pub(super) fn check_all_layers(mmproj: &Path, vision: &ClipVisionConfig, read: usize) -> Result<(), Error> {
    if read < vision.num_hidden_layers {
        return Ok(());
    }
    let layers = vision.num_hidden_layers;
    let reason = format!(
        "a method that reads the [CLS] attention of all layers of the tower cannot run: the file has {layers} blocks (clip.vision.block_count), and the \
         tower's last layer is not among them; take another method (fastervlm, vispruner, divprune, visionzip), or the original checkpoint"
    );
    Err(Error::config(mmproj, reason))
}
