//! Qwen2-VL and Qwen2.5-VL as pairs of GGUF files: the architecture `qwen2vl`, and an encoder with a merger.

mod tensors;

use std::{collections::BTreeMap, path::Path};

use secateur_weights::{Gguf, StoredTensor, printable};

use super::{
    Qwen2Vl,
    config::{Generation, VisionConfig},
};
use crate::{
    Error,
    image::{DynamicProcessor, PixelLimits},
    model::{
        DecoderConfig, GgufFile, Pair,
        gguf::{
            decoder::{decoder_config, decoder_settings, of_decoder},
            settings::{count, flag, mean_and_std, needed, number, text, three},
            tensors::{columns, parts, take},
        },
    },
};

/// The architecture of the language model.
const ARCHITECTURE: &str = "qwen2vl";
/// The setting with the kind of the projector, by which a file tells the generation.
const PROJECTOR: &str = "clip.projector_type";
/// The setting with the distance between blocks that attend to the whole image.
const PATTERN: &str = "clip.vision.n_wa_pattern";
/// The setting with the side of a window in pixels.
const WINDOW: &str = "clip.vision.window_size";
/// The setting with the numbers of frequencies for each axis of a position.
const SECTIONS: &str = "qwen2vl.rope.dimension_sections";
/// The settings with the limits of pixels.
const PIXELS: [&str; 2] = ["clip.vision.image_min_pixels", "clip.vision.image_max_pixels"];
/// The limits of the published checkpoints, for files that have none.
const PUBLISHED: PixelLimits = PixelLimits { least: 3136, most: 12_845_056 };
/// The side of a window of the published checkpoints, in pixels.
const USUAL_WINDOW: usize = 112;
/// The positions in a second of video of the published checkpoints; files do not say it.
const TOKENS_PER_SECOND: f64 = 2.0;

/// Whether a language model is a Qwen2-VL or Qwen2.5-VL.
///
/// # Errors
/// When its architecture is no text.
pub(super) fn detect(pair: &Pair) -> Result<bool, Error> {
    Ok(pair.decoder.text("general.architecture")? == Some(ARCHITECTURE))
}

/// The checkpoint in a pair of files.
///
/// # Errors
/// When a setting is missing or damaged, or the files do not belong together.
pub(super) fn read(pair: &std::sync::Arc<Pair>) -> Result<Qwen2Vl, Error> {
    let Pair { decoder, mmproj } = &**pair;
    let mut text = decoder_config(decoder, ARCHITECTURE)?;
    text.qkv_bias = true;
    if text.rope.sections.is_none() {
        return Err(decoder.missing(SECTIONS).into());
    }
    let (vision, processor) = encoder(mmproj)?;
    let width = columns(mmproj, "mm.2.weight", 0)?;
    if width != text.hidden_size {
        let (path, expected) = (decoder.path.display(), text.hidden_size);
        let reason = format!(
            "it merges to a width of {width} (mm.2.weight), and {path} has {expected} (qwen2vl.embedding_length): of another model"
        );
        return Err(Error::config(&mmproj.path, reason));
    }
    Ok(Qwen2Vl { vision, text, processor, pair: Some(pair.clone()) })
}

fn encoder(file: &Gguf) -> Result<(VisionConfig, DynamicProcessor), Error> {
    let refuse = |reason: String| Err(Error::config(&file.path, reason));
    // Newer files may hold encoders of images and of sound, each with its own.
    let projector = match file.text(PROJECTOR)? {
        Some(projector) => projector,
        None => file.text("clip.vision.projector_type")?.ok_or_else(|| file.missing(PROJECTOR))?,
    };
    let generation = match projector {
        "qwen2vl_merger" => Generation::Qwen2,
        "qwen2.5vl_merger" => Generation::Qwen2_5,
        other => {
            let reason = format!(
                "the setting `{PROJECTOR}` is `{}`; qwen2vl_merger and qwen2.5vl_merger are known for this language model",
                printable(other)
            );
            return refuse(reason);
        }
    };
    let size = |key: &str| needed(file, &format!("clip.vision.{key}"));
    let (hidden, depth, heads, patch) = (size("embedding_length")?, size("block_count")?, size("attention.head_count")?, size("patch_size")?);
    let merge = file.count("clip.vision.spatial_merge_size")?.unwrap_or(2);
    let (window, full) = match generation {
        Generation::Qwen2 => (None, Vec::new()),
        Generation::Qwen2_5 => {
            let pattern = needed(file, PATTERN)?;
            if pattern == 0 {
                return refuse(format!("the setting `{PATTERN}` is 0; a number from 1 on is expected"));
            }
            let window = file.count(WINDOW)?.unwrap_or(USUAL_WINDOW) / patch.max(1) / merge.max(1);
            (Some(window), (0..depth).filter(|block| (block + 1).is_multiple_of(pattern)).collect())
        }
    };
    let vision = VisionConfig {
        generation,
        depth,
        hidden,
        inner: inner(file, hidden)?,
        heads,
        patch,
        frames: 2,
        merge,
        window,
        full,
        tokens_per_second: (generation == Generation::Qwen2_5).then_some(TOKENS_PER_SECOND),
    };
    vision.check(&file.path)?;
    let [least, most] = [file.count(PIXELS[0])?, file.count(PIXELS[1])?];
    let limits = PixelLimits { least: least.unwrap_or(PUBLISHED.least), most: most.unwrap_or(PUBLISHED.most) };
    let limits = limits.check().map_err(|reason| Error::config(&file.path, reason))?;
    let [mean, std] = mean_and_std(file)?;
    Ok((vision, DynamicProcessor::new(patch, merge, limits, mean, std)))
}

/// The width inside the MLP, by the matrices themselves: converters of Qwen2-VL wrote another number into the settings.
fn inner(file: &Gguf, hidden: usize) -> Result<usize, Error> {
    let [rows, columns] = [columns(file, "v.blk.0.ffn_up.weight", 0)?, columns(file, "v.blk.0.ffn_up.weight", 1)?];
    Ok(if columns == hidden { rows } else { columns })
}

/// The names of the two matrices of an MLP without a gate: the first files call the first one `ffn_down`, and its shape tells.
fn mlp_names(file: &Gguf, hidden: usize) -> Result<[&'static str; 2], Error> {
    let is_up = columns(file, "v.blk.0.ffn_up.weight", 1)? == hidden;
    Ok(if is_up { ["ffn_up", "ffn_down"] } else { ["ffn_down", "ffn_up"] })
}

/// All tensors of a pair by their paths in the networks.
///
/// # Errors
/// When one is missing, of another shape, or has no place in the networks.
pub(super) fn tensors(pair: &Pair, vision: &VisionConfig, text: &DecoderConfig) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let mut all = take(&pair.decoder, of_decoder(text, false), None)?;
    let names = mlp_names(&pair.mmproj, vision.hidden)?;
    all.extend(take(&pair.mmproj, tensors::of_encoder(vision, text.hidden_size, names), None)?);
    Ok(all)
}

/// The two files: the language model's, without its tokenizer, and the image encoder's.
///
/// # Errors
/// When llama.cpp has no setting for something that the model has.
pub(super) fn files(checkpoint: &Qwen2Vl, folder: &Path) -> Result<[GgufFile; 2], Error> {
    let Qwen2Vl { vision, text: config, processor, .. } = checkpoint;
    let refuse = |what: &str| Err(Error::config(folder, format!("{what}, which GGUF files of Qwen2-VL cannot say")));
    let pattern = vision.full.first().map_or(vision.depth, |first| first + 1);
    let follows = |block: usize| vision.full.contains(&block) == (block + 1).is_multiple_of(pattern);
    if vision.window.is_some() && !(0..vision.depth).all(follows) {
        return refuse("its blocks with attention over the whole image are not at even distances");
    }
    if vision.frames != 2 || vision.tokens_per_second.is_some_and(|seconds| seconds != TOKENS_PER_SECOND) {
        return refuse("it has another number of frames in a patch, or of positions in a second of video");
    }
    let mut decoder = decoder_settings(config, ARCHITECTURE);
    if let Some(sections) = config.rope.sections {
        let list = sections.iter().map(|count| *count as i32).chain([0]).collect();
        decoder.push((SECTIONS.to_owned(), secateur_weights::Setting::Counts(list)));
    }
    let is_newer = vision.generation == Generation::Qwen2_5;
    let side = 40 * vision.patch;
    let mut encoder = vec![
        text("general.architecture", "clip"),
        text("general.type", "mmproj"),
        count("general.file_type", 1),
        flag("clip.has_vision_encoder", true),
        text(PROJECTOR, if is_newer { "qwen2.5vl_merger" } else { "qwen2vl_merger" }),
        flag(if is_newer { "clip.use_silu" } else { "clip.use_gelu" }, is_newer),
        // A size to begin with: images have their own.
        count("clip.vision.image_size", side),
        count("clip.vision.patch_size", vision.patch),
        count("clip.vision.embedding_length", vision.hidden),
        count("clip.vision.feed_forward_length", vision.inner),
        count("clip.vision.projection_dim", config.hidden_size),
        count("clip.vision.attention.head_count", vision.heads),
        number("clip.vision.attention.layer_norm_epsilon", super::config::NORM_EPS),
        count("clip.vision.block_count", vision.depth),
        count("clip.vision.spatial_merge_size", vision.merge),
        three("clip.vision.image_mean", processor.mean.map(|mean| mean as f32)),
        three("clip.vision.image_std", processor.std.map(|std| std as f32)),
        count(PIXELS[0], processor.images.least),
        count(PIXELS[1], processor.images.most),
    ];
    if let Some(window) = vision.window {
        encoder.push(count(PATTERN, pattern));
        encoder.push(count(WINDOW, window * vision.patch * vision.merge));
    }
    let names = ["ffn_up", "ffn_down"];
    Ok([
        GgufFile { settings: decoder, tensors: parts(of_decoder(config, false)) },
        GgufFile { settings: encoder, tensors: parts(tensors::of_encoder(vision, config.hidden_size, names)) },
    ])
}
