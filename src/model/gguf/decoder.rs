//! Decoders in GGUF files: their settings and tensors, which are alike in all architectures.

use secateur_blocks::RowOrder;
use secateur_weights::{Gguf, Setting, Value, printable};

use super::{
    settings::{count, needed, number, text},
    tensors::{Expected, columns, expected},
};
use crate::{
    Error,
    model::{DecoderConfig, RopeConfig, RopeScaling},
};

/// The shape of the decoder in a file of the architecture `name`, whose settings start with it.
///
/// # Errors
/// When a setting is missing, or the shape is none that a model has.
pub(in crate::model) fn decoder_config(file: &Gguf, name: &str) -> Result<DecoderConfig, Error> {
    let key = |end: &str| format!("{name}.{end}");
    let heads = needed(file, &key("attention.head_count"))?;
    let hidden_size = needed(file, &key("embedding_length"))?;
    let usual = hidden_size / heads.max(1);
    let head_dim = file.count(&key("attention.key_length"))?.unwrap_or(usual);
    for key in ["attention.value_length", "rope.dimension_count"].map(key) {
        if let Some(other) = file.count(&key)?.filter(|other| *other != head_dim) {
            let reason = format!("the setting `{key}` is {other}, and a head is {head_dim} wide; both must be equal");
            return Err(Error::config(&file.path, reason));
        }
    }
    let epsilon = &key("attention.layer_norm_rms_epsilon");
    let config = DecoderConfig {
        vocab_size: columns(file, "token_embd.weight", 0)?,
        hidden_size,
        intermediate_size: needed(file, &key("feed_forward_length"))?,
        num_hidden_layers: needed(file, &key("block_count"))?,
        num_attention_heads: heads,
        num_key_value_heads: file.count(&key("attention.head_count_kv"))?.unwrap_or(heads),
        head_dim,
        rms_norm_eps: file.number(epsilon)?.ok_or_else(|| file.missing(epsilon))?,
        rope: rope(file, key)?,
        max_position_embeddings: needed(file, &key("context_length"))?,
        tied: !file.tensors.contains_key("output.weight"),
        ..DecoderConfig::default()
    };
    config.check_sizes(&file.path)?;
    Ok(config)
}

fn rope(file: &Gguf, key: impl Fn(&str) -> String) -> Result<RopeConfig, Error> {
    let theta = file.number(&key("rope.freq_base"))?.unwrap_or(RopeConfig::default().theta);
    if !(theta.is_finite() && theta > 0.0) {
        return Err(Error::config(
            &file.path,
            format!("the setting `{}` is {theta}; a number above 0 is expected", key("rope.freq_base")),
        ));
    }
    let kind = file.text(&key("rope.scaling.type"))?.unwrap_or("none");
    let factor = match file.number(&key("rope.scaling.factor"))? {
        Some(factor) => Some(factor),
        // The key of older files.
        None => file.number(&key("rope.scale_linear"))?,
    };
    let scaling = match (kind, factor) {
        ("none", None) => RopeScaling::None,
        ("none" | "linear", Some(factor)) if factor >= 1.0 && factor.is_finite() => RopeScaling::Linear(factor),
        (other, _) => {
            let reason = format!(
                "rotary positions are scaled by `{}`; linear is known, with a factor from 1 on",
                printable(other)
            );
            return Err(Error::config(&file.path, reason));
        }
    };
    Ok(RopeConfig { theta, scaling, sections: sections(file, &key("rope.dimension_sections"))? })
}

/// The number of frequencies that turn with each axis of a position; the file's list has a fourth number, which is 0.
fn sections(file: &Gguf, key: &str) -> Result<Option<[usize; 3]>, Error> {
    let count = |value: &Value| if let Value::Int(n) = value { usize::try_from(*n).ok() } else { None };
    match file.list(key, "a list of whole numbers", count)?.as_deref() {
        None => Ok(None),
        Some([time, height, width] | [time, height, width, 0]) => Ok(Some([*time, *height, *width])),
        Some(other) => {
            let reason = format!("the setting `{key}` is {other:?}; three numbers, and perhaps a 0, are expected");
            Err(Error::config(&file.path, reason))
        }
    }
}

/// The tensors of a language model. With `turned`, positions rotate neighbours in the file's architecture and halves here, so that rows of queries and keys
/// have another order there.
pub(in crate::model) fn of_decoder(config: &DecoderConfig, turned: bool) -> Vec<Expected> {
    let &DecoderConfig { hidden_size: hidden, intermediate_size: inner, vocab_size, head_dim, .. } = config;
    let [queries, keys] = [config.num_attention_heads, config.num_key_value_heads].map(|heads| heads * head_dim);
    let mut all = vec![
        expected("token_embd.weight", "language_model.embed_tokens.weight", &[vocab_size, hidden]),
        expected("output_norm.weight", "language_model.norm.weight", &[hidden]),
    ];
    if !config.tied {
        all.push(expected("output.weight", "language_model.lm_head.weight", &[vocab_size, hidden]));
    }
    let turned = if turned { RowOrder::Interleaved { width: head_dim } } else { RowOrder::Plain };
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
            let (name, path) = (format!("blk.{layer}.{name}"), format!("language_model.layers.{layer}.{path}"));
            all.push(Expected { order, ..expected(format!("{name}.weight"), format!("{path}.weight"), shape) });
            let is_input = ["q_proj", "k_proj", "v_proj"].iter().any(|end| path.ends_with(end));
            if is_input && config.qkv_bias {
                all.push(expected(format!("{name}.bias"), format!("{path}.bias"), &shape[..1]));
            }
        }
    }
    all
}

/// The settings of a decoder in a file of the architecture `name`.
pub(in crate::model) fn decoder_settings(config: &DecoderConfig, name: &str) -> Vec<(String, Setting)> {
    let key = |end: &str| format!("{name}.{end}");
    vec![
        text("general.architecture", name),
        text("general.type", "model"),
        count("general.quantization_version", 2),
        count(&key("vocab_size"), config.vocab_size),
        count(&key("context_length"), config.max_position_embeddings),
        count(&key("embedding_length"), config.hidden_size),
        count(&key("block_count"), config.num_hidden_layers),
        count(&key("feed_forward_length"), config.intermediate_size),
        count(&key("attention.head_count"), config.num_attention_heads),
        count(&key("attention.head_count_kv"), config.num_key_value_heads),
        count(&key("attention.key_length"), config.head_dim),
        count(&key("attention.value_length"), config.head_dim),
        count(&key("rope.dimension_count"), config.head_dim),
        number(&key("attention.layer_norm_rms_epsilon"), config.rms_norm_eps),
        number(&key("rope.freq_base"), config.rope.theta),
    ]
}
