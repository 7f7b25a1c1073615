//! The tensors of a pair of GGUF files: their names there, their paths in the networks, and their shapes.

use std::collections::BTreeMap;

use secateur_weights::{Gguf, StoredTensor};

use super::FEATURE_LAYER;
use crate::{
    Error,
    model::{
        Pair,
        families::llava::{Images, LlavaConfig},
        gguf::{
            decoder::of_decoder,
            tensors::{Expected, columns, expected, take},
        },
        towers::clip::ClipVisionConfig,
    },
    sequence::Merge,
};

/// All tensors of a pair by their paths in the networks.
///
/// # Errors
/// When one is missing, of another shape, or has no place in the networks.
pub(in crate::model::families::llava) fn tensors(pair: &Pair, config: &LlavaConfig) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let newline = matches!(config.images, Images::AnyRes { merge: Merge::SpatialUnpad, .. });
    let mut all = take(&pair.decoder, of_decoder(&config.text, true), None)?;
    let newline = newline.then(|| newline_name(&pair.mmproj));
    let encoder = of_encoder(&config.vision, config.text.hidden_size, mlp_names(&pair.mmproj, &config.vision)?, newline);
    all.extend(take(&pair.mmproj, encoder, Some(LAST_NORM))?);
    Ok(all)
}

/// The names of the MLP's matrices: old files call the first one `ffn_down`, and its shape tells.
fn mlp_names(file: &Gguf, vision: &ClipVisionConfig) -> Result<[&'static str; 2], Error> {
    let is_down = columns(file, "v.blk.0.ffn_down.weight", 1)? == vision.hidden_size;
    // Where both are square, only the files that say which layer is read have the new names.
    let is_old = vision.hidden_size != vision.intermediate_size || file.setting(FEATURE_LAYER).is_none();
    Ok(if is_down && is_old { ["ffn_down", "ffn_up"] } else { ["ffn_up", "ffn_down"] })
}

/// The name of the embedding that ends a row of patches; today's llama.cpp has another one than its converter.
fn newline_name(file: &Gguf) -> &'static str {
    let names = ["model.image_newline", "v.image_newline"];
    names.into_iter().find(|name| file.tensors.contains_key(*name)).unwrap_or(names[0])
}

/// The tensors of an image encoder that projects to a `width`, with these names of the MLP's matrices and of the embedding that ends a row
/// of patches, if there is one.
pub(super) fn of_encoder(
    vision: &ClipVisionConfig,
    width: usize,
    [first, second]: [&str; 2],
    newline: Option<&str>,
) -> Vec<Expected> {
    let &ClipVisionConfig { hidden_size: hidden, intermediate_size: inner, patch_size: patch, .. } = vision;
    let embeddings = "vision_tower.embeddings";
    let mut all = vec![
        expected("v.class_embd", format!("{embeddings}.class_embedding"), &[hidden]),
        expected("v.patch_embd.weight", format!("{embeddings}.patch_embedding.weight"), &[hidden, 3, patch, patch]),
        expected(
            "v.position_embd.weight",
            format!("{embeddings}.position_embedding.weight"),
            &[1 + vision.grid().tokens(), hidden],
        ),
    ];
    let mut layer = |name: &str, path: &str, shape: &[usize]| {
        all.push(expected(format!("{name}.weight"), format!("{path}.weight"), shape));
        all.push(expected(format!("{name}.bias"), format!("{path}.bias"), &shape[..1]));
    };
    layer("v.pre_ln", "vision_tower.pre_layrnorm", &[hidden]);
    for block in 0..vision.num_hidden_layers {
        let (name, path) = (format!("v.blk.{block}"), format!("vision_tower.encoder.layers.{block}"));
        for (own, module, shape) in [
            ("ln1", "layer_norm1", &[hidden][..]),
            ("attn_q", "self_attn.q_proj", &[hidden, hidden]),
            ("attn_k", "self_attn.k_proj", &[hidden, hidden]),
            ("attn_v", "self_attn.v_proj", &[hidden, hidden]),
            ("attn_out", "self_attn.out_proj", &[hidden, hidden]),
            ("ln2", "layer_norm2", &[hidden]),
            (first, "mlp.fc1", &[inner, hidden]),
            (second, "mlp.fc2", &[hidden, inner]),
        ] {
            layer(&format!("{name}.{own}"), &format!("{path}.{module}"), shape);
        }
    }
    layer("mm.0", "projector.linear_1", &[width, hidden]);
    layer("mm.2", "projector.linear_2", &[width, width]);
    all.extend(newline.map(|name| expected(name, "image_newline", &[width])));
    all
}

/// The start of the tower's last norm, which LLaVA does not read.
const LAST_NORM: &str = "v.post_ln.";
