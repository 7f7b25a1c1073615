//! The tensors of an image encoder: their names in GGUF files, their paths in the networks, and their shapes.

use crate::model::{
    families::qwen2_vl::config::{Generation, VisionConfig},
    gguf::tensors::{Expected, expected},
};

/// The tensors of an encoder whose embeddings are `width` wide. In the first files, `ffn_down` is the first matrix of an MLP without a gate: the names
/// of both are given.
pub(super) fn of_encoder(vision: &VisionConfig, width: usize, [first, second]: [&str; 2]) -> Vec<Expected> {
    let &VisionConfig { hidden, inner, patch, merge, .. } = vision;
    let mut all = Vec::new();
    for frame in 0..vision.frames {
        let name = if frame == 0 { "v.patch_embd.weight".to_owned() } else { format!("v.patch_embd.weight.{frame}") };
        let path = format!("vision_tower.patch_embed.frames.{frame}.weight");
        all.push(expected(name, path, &[hidden, 3, patch, patch]));
    }
    let mut layer = |name: &str, path: &str, shape: &[usize], bias: bool| {
        all.push(expected(format!("{name}.weight"), format!("{path}.weight"), shape));
        if bias {
            all.push(expected(format!("{name}.bias"), format!("{path}.bias"), &shape[..1]));
        }
    };
    let has_norm_bias = vision.generation == Generation::Qwen2;
    for block in 0..vision.depth {
        let (name, path) = (format!("v.blk.{block}"), format!("vision_tower.blocks.{block}"));
        let norm = |own: &str| format!("{name}.{own}");
        layer(&norm("ln1"), &format!("{path}.norm1"), &[hidden], has_norm_bias);
        layer(&norm("ln2"), &format!("{path}.norm2"), &[hidden], has_norm_bias);
        for (own, module, shape) in [
            ("attn_q", "attn.q_proj", [hidden, hidden]),
            ("attn_k", "attn.k_proj", [hidden, hidden]),
            ("attn_v", "attn.v_proj", [hidden, hidden]),
            ("attn_out", "attn.proj", [hidden, hidden]),
            (first, "mlp.up_proj", [inner, hidden]),
            (second, "mlp.down_proj", [hidden, inner]),
        ] {
            layer(&format!("{name}.{own}"), &format!("{path}.{module}"), &shape, true);
        }
        if vision.generation == Generation::Qwen2_5 {
            layer(&format!("{name}.ffn_gate"), &format!("{path}.mlp.gate_proj"), &[inner, hidden], true);
        }
    }
    let unit = hidden * merge * merge;
    layer("v.post_ln", "projector.ln_q", &[hidden], has_norm_bias);
    layer("mm.0", "projector.linear_1", &[unit, unit], true);
    layer("mm.2", "projector.linear_2", &[width, unit], true);
    all
}
