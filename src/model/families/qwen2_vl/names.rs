//! The table from names in Qwen2-VL's and Qwen2.5-VL's checkpoints to paths in modules.

use std::collections::BTreeMap;

use secateur_weights::{Rename, StoredTensor};

/// The names in a checkpoint and their paths in the module; the second half is the order of transformers 4.52 and later.
///
/// | file | module |
/// |---|---|
/// | `visual.merger.mlp.0.*`, `.2.*` | `projector.linear_1.*`, `linear_2.*` |
/// | `visual.*` | `vision_tower.*` |
/// | `visual.blocks.N.attn.qkv.*` | `vision_tower.blocks.N.attn.q_proj.*`, `k_proj`, `v_proj`, a third of the rows each |
/// | `visual.patch_embed.proj.weight` | `vision_tower.patch_embed.frames.0.weight`, `1`, a frame each |
/// | `visual.blocks.N.mlp.fc1.*`, `fc2.*` | `vision_tower.blocks.N.mlp.up_proj.*`, `down_proj.*` |
/// | `model.*`, `lm_head.*` | `language_model.*` |
pub(super) const NAMES: Rename = Rename {
    prefixes: &[
        ("visual.merger.mlp.0.", "projector.linear_1."),
        ("visual.merger.mlp.2.", "projector.linear_2."),
        ("visual.merger.", "projector."),
        ("visual.", "vision_tower."),
        ("model.visual.merger.mlp.0.", "projector.linear_1."),
        ("model.visual.merger.mlp.2.", "projector.linear_2."),
        ("model.visual.merger.", "projector."),
        ("model.visual.", "vision_tower."),
        ("model.language_model.", "language_model."),
        ("model.", "language_model."),
        ("lm_head.", "language_model.lm_head."),
    ],
    parts: &[(".mlp.fc1.", ".mlp.up_proj."), (".mlp.fc2.", ".mlp.down_proj.")],
    ignored: &[],
};

/// Takes apart what is one tensor in a checkpoint and several in the networks, as it is in GGUF files: queries, keys and values, and the frames of the patch
/// embedding. A tensor of another shape stays as it is, and is then one that the model has no place for.
pub(super) fn take_apart(tensors: &mut BTreeMap<String, StoredTensor>) {
    let whole: Vec<String> = tensors.keys().filter(|path| path.starts_with("vision_tower.")).cloned().collect();
    for path in whole {
        let Some(tensor) = tensors.get(&path) else { continue };
        let parts: Vec<(String, Option<StoredTensor>)> = if path.contains(".attn.qkv.") {
            let rows = tensor.shape.first().copied().unwrap_or(0) / 3;
            let part = |(i, name): (usize, &str)| (path.replace(".qkv.", name), tensor.rows(i * rows..(i + 1) * rows));
            [".q_proj.", ".k_proj.", ".v_proj."].into_iter().enumerate().map(part).collect()
        } else if path == "vision_tower.patch_embed.proj.weight" && tensor.shape.len() == 5 {
            let part = |i: usize| (format!("vision_tower.patch_embed.frames.{i}.weight"), tensor.at(2, i));
            (0..tensor.shape[2]).map(part).collect()
        } else {
            continue;
        };
        if let Some(parts) = parts.into_iter().map(|(path, part)| Some((path, part?))).collect::<Option<Vec<_>>>() {
            tensors.remove(&path);
            tensors.extend(parts);
        }
    }
}
