//! The tensors of a pair of GGUF files: their names there, their paths in the networks, and their shapes.

use std::collections::BTreeMap;

use secateur_blocks::RowOrder;
use secateur_weights::{Gguf, StoredTensor, printable};

use super::{FEATURE_LAYER, columns, missing_tensor};
use crate::{
    Error,
    model::{DecoderConfig, Pair, families::llava::{Images, LlavaConfig}, towers::clip::ClipVisionConfig},
    sequence::Merge,
};

/// A tensor that a file must have.
pub(super) struct Expected {
    /// The name of the tensor in the file.
    pub(super) name: String,
    /// The path of the tensor in the networks.
    pub(super) path: String,
    /// The dimensions, the innermost one last.
    pub(super) shape: Vec<usize>,
    /// The order of the rows in the file.
    pub(super) order: RowOrder,
}

fn expected(name: impl Into<String>, path: impl Into<String>, shape: &[usize]) -> Expected {
    Expected { name: name.into(), path: path.into(), shape: shape.to_vec(), order: RowOrder::Plain }
}

/// All tensors of a pair by their paths in the networks.
///
/// # Errors
/// When one is missing, of another shape, or has no place in the networks.
pub(in crate::model::families::llava) fn tensors(pair: &Pair, config: &LlavaConfig) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let newline = matches!(config.images, Images::AnyRes { merge: Merge::SpatialUnpad, .. });
    let mut all = take(&pair.decoder, of_decoder(&config.text))?;
    let newline = newline.then(|| newline_name(&pair.mmproj));
    let encoder = of_encoder(&config.vision, config.text.hidden_size, mlp_names(&pair.mmproj, &config.vision)?, newline);
    all.extend(take(&pair.mmproj, encoder)?);
    Ok(all)
}

/// The tensors of a language model.
pub(super) fn of_decoder(config: &DecoderConfig) -> Vec<Expected> {
    let &DecoderConfig { hidden_size: hidden, intermediate_size: inner, vocab_size, head_dim, .. } = config;
    let [queries, keys] = [config.num_attention_heads, config.num_key_value_heads].map(|heads| heads * head_dim);
    let mut all = vec![
        expected("token_embd.weight", "language_model.embed_tokens.weight", &[vocab_size, hidden]),
        expected("output_norm.weight", "language_model.norm.weight", &[hidden]),
    ];
    if !config.tied {
        all.push(expected("output.weight", "language_model.lm_head.weight", &[vocab_size, hidden]));
    }
    // Positions rotate neighbours in llama.cpp and halves here, so that rows of queries and keys have another order.
    let turned = RowOrder::Interleaved { width: head_dim };
    for layer in 0..config.num_hidden_layers {
        for (name, path, shape, order) in [
            ("attn_norm", "input_layernorm", &[hidden][..], RowOrder::Plain),
            ("attn_q", "self_attn.q_proj", &[queries, hidden], turned),
            ("attn_k", "self_attn.k_proj", &[keys, hidden], turned),
            ("attn_v", "self_attn.v_proj", &[keys, hidden], RowOrder::Plain),
            ("attn_output", "self_attn.o_proj", &[hidden, queries], RowOrder::Plain),
            ("ffn_norm", "post_attention_layernorm", &[hidden], RowOrder::Plain),
            ("ffn_gate", "mlp.gate_proj", &[inner, hidden], RowOrder::Plain),
            ("ffn_up", "mlp.up_proj", &[inner, hidden], RowOrder::Plain),
            ("ffn_down", "mlp.down_proj", &[hidden, inner], RowOrder::Plain),
        ] {
            let name = format!("blk.{layer}.{name}.weight");
            let path = format!("language_model.layers.{layer}.{path}.weight");
            all.push(Expected { order, ..expected(name, path, shape) });
        }
    }
    all
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

/// Takes the tensors of a file by their names.
fn take(file: &Gguf, expected: Vec<Expected>) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let mut rest: BTreeMap<&str, &StoredTensor> = file.tensors.iter().map(|(name, tensor)| (&name[..], tensor)).collect();
    let mut found = BTreeMap::new();
    for Expected { name, path, shape, order } in &expected {
        let tensor = rest.remove(&name[..]).ok_or_else(|| missing_tensor(file, name))?;
        if tensor.shape != *shape {
            let reason = format!("the tensor `{name}` has the shape {:?}; {shape:?} is expected, by its settings", tensor.shape);
            return Err(Error::config(&file.path, reason));
        }
        let mut tensor = tensor.clone();
        tensor.order = *order;
        found.insert(path.clone(), tensor);
    }
    rest.retain(|name, _| !name.starts_with(LAST_NORM));
    match rest.keys().next() {
        None => Ok(found),
        Some(name) => {
            let reason = format!("the tensor `{}` has no place in the model, nor have {} others", printable(name), rest.len() - 1);
            Err(Error::config(&file.path, reason))
        }
    }
}

