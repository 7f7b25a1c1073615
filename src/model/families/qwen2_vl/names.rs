//! The table from names in Qwen2-VL's and Qwen2.5-VL's checkpoints to paths in modules.

use secateur_weights::Rename;

/// The names in a checkpoint and their paths in the module; the second half is the order of transformers 4.52 and later.
///
/// | file | module |
/// |---|---|
/// | `visual.merger.mlp.0.*`, `.2.*` | `projector.linear_1.*`, `linear_2.*` |
/// | `visual.*` | `vision_tower.*` |
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
