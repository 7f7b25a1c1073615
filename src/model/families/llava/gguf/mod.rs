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
    model::{
        DecoderConfig, Pair,
        gguf::{
            decoder::decoder_config,
            settings::{mean_and_std, needed},
            tensors::columns,
        },
        towers::clip::ClipVisionConfig,
    },
    sequence::Merge,
};

/// The setting with the form of conversations.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// The setting with the tower's layer that features are read from.
const FEATURE_LAYER: &str = "clip.vision.feature_layer";

/// The architecture of the language model.
const ARCHITECTURE: &str = "llama";

/// Whether a language model is a Llama or a Mistral.
///
/// # Errors
/// When its architecture is no text.
pub(super) fn detect(pair: &Pair) -> Result<bool, Error> {
    Ok(pair.decoder.text("general.architecture")? == Some(ARCHITECTURE))
}

/// The error for a language model that no family knows.
pub(super) fn unknown(pair: &Pair) -> Error {
    let kind = pair.decoder.text("general.architecture").ok().flatten().unwrap_or_default();
    let reason = format!(
        "architecture `{}`; llama (LLaVAs on Llama and Mistral) and qwen2vl (Qwen2-VL and Qwen2.5-VL) are known",
        printable(kind)
    );
    Error::config(&pair.decoder.path, reason)
}

/// The networks' shapes, the image processor's settings, and the language model.
pub(super) fn read(pair: &Pair) -> Result<(LlavaConfig, ClipProcessor, Language), Error> {
    let Pair { decoder, mmproj } = pair;
    let text = decoder_config(decoder, ARCHITECTURE)?;
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
    let [mean, std] = mean_and_std(file)?;
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
