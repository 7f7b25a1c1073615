//! Tables from names in CLIP's checkpoints to paths in modules.

use secateur_weights::{Ignored, Rename};

const TEXT_SIDE: &str = "the text side of CLIP, which LLaVA does not use";
const VISION_SIDE: &str = "the vision side of CLIP, which is LLaVA's tower";
const LAST_NORM: &str = "applied after the last layer, which LLaVA does not read";
/// The reason why buffers are left out.
pub(in crate::model) const BUFFER: &str = "a buffer that is computed";

/// The names of a tower's checkpoint and their paths in the module.
///
/// | file | module |
/// |---|---|
/// | `vision_model.*` | `vision_tower.*` |
pub(in crate::model) const TOWER: Rename = Rename {
    prefixes: &[("vision_model.", "vision_tower.")],
    parts: &[],
    ignored: &[
        Ignored { prefix: "text_model.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "text_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "visual_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "logit_scale", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "vision_model.post_layernorm.", suffix: "", why: LAST_NORM },
        Ignored { prefix: "vision_model.", suffix: ".position_ids", why: BUFFER },
    ],
};

/// The tower's last norm in either layout, which only [`super::ClipJoint`] applies.
pub(in crate::model) const POST_LAYERNORM: &str = "vision_tower.post_layernorm.";

/// The names of a CLIP checkpoint and their paths in [`super::ClipJoint`].
///
/// | file | module |
/// |---|---|
/// | `vision_model.post_layernorm.*` | `post_layernorm.*` |
/// | `visual_projection.*`, `text_model.*`, `text_projection.*` | unchanged |
pub(in crate::model) const JOINT: Rename = Rename {
    prefixes: &[("vision_model.post_layernorm.", "post_layernorm.")],
    parts: &[],
    ignored: &[
        Ignored { prefix: "vision_model.embeddings.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "vision_model.pre_layrnorm.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "vision_model.encoder.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "logit_scale", suffix: "", why: "a factor that changes no order" },
        Ignored { prefix: "text_model.", suffix: ".position_ids", why: BUFFER },
    ],
};
