//! Names in checkpoints to paths in modules, a table for each layout.

use secateur_weights::{Ignored, Rename};

const TEXT_SIDE: &str = "the text side of CLIP, which LLaVA does not use";
const VISION_SIDE: &str = "the vision side of CLIP, which is LLaVA's tower";
const LAST_NORM: &str = "applied after the last layer, which LLaVA does not read";
const BUFFER: &str = "a buffer that is computed";

/// Tower checkpoint → module.
///
/// | file | module |
/// |---|---|
/// | `vision_model.*` | `vision_tower.*` |
pub(super) const TOWER: Rename = Rename {
    prefixes: &[("vision_model.", "vision_tower.")],
    ignored: &[
        Ignored { prefix: "text_model.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "text_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "visual_projection.", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "logit_scale", suffix: "", why: TEXT_SIDE },
        Ignored { prefix: "vision_model.post_layernorm.", suffix: "", why: LAST_NORM },
        Ignored { prefix: "vision_model.", suffix: ".position_ids", why: BUFFER },
    ],
};

/// Original checkpoint → module.
///
/// | file | module |
/// |---|---|
/// | `model.mm_projector.0.*`, `.2.*` | `projector.linear_1.*`, `linear_2.*` |
/// | `model.vision_tower.vision_tower.vision_model.*`, `model.image_tower.image_tower.*` | `vision_tower.*` |
/// | `model.video_tower.video_tower.*` | `video_tower.*` |
/// | `model.image_newline` | `image_newline` |
/// | `model.*`, `lm_head.*` | `language_model.*` |
///
/// Some checkpoints have copies of their towers; the official loader reads the checkpoints that the config names instead, unless the tower was
/// trained too. A copy that differs gets a note: [`super::copies`].
pub(super) const ORIGINAL: Rename = Rename {
    prefixes: &[
        ("model.mm_projector.0.", "projector.linear_1."),
        ("model.mm_projector.2.", "projector.linear_2."),
        ("model.vision_tower.vision_tower.vision_model.", "vision_tower."),
        ("model.image_tower.image_tower.", "vision_tower."),
        ("model.video_tower.video_tower.", "video_tower."),
        ("model.image_newline", "image_newline"),
        ("model.", "language_model."),
        ("lm_head.", "language_model.lm_head."),
    ],
    ignored: &[
        Ignored { prefix: "model.layers.", suffix: ".rotary_emb.inv_freq", why: BUFFER },
        Ignored { prefix: "model.vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.image_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.video_tower.", suffix: ".position_ids", why: BUFFER },
    ],
};

/// llava-hf checkpoint → module; the second half is the order of transformers 4.52 and later.
///
/// | file | module |
/// |---|---|
/// | `vision_tower.vision_model.*` | `vision_tower.*` |
/// | `multi_modal_projector.*` | `projector.*` |
/// | `language_model.model.*`, `language_model.lm_head.*` | `language_model.*` |
pub(super) const HF: Rename = Rename {
    prefixes: &[
        ("vision_tower.vision_model.", "vision_tower."),
        ("multi_modal_projector.", "projector."),
        ("language_model.model.", "language_model."),
        ("model.vision_tower.vision_model.", "vision_tower."),
        ("model.multi_modal_projector.", "projector."),
        ("model.language_model.", "language_model."),
        ("model.image_newline", "image_newline"),
        ("lm_head.", "language_model.lm_head."),
    ],
    ignored: &[
        Ignored { prefix: "vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "language_model.", suffix: ".rotary_emb.inv_freq", why: BUFFER },
    ],
};

/// The tower's last norm in either layout, which only [`super::ClipJoint`] applies.
pub(super) const POST_LAYERNORM: &str = "vision_tower.post_layernorm.";

/// CLIP checkpoint → [`super::ClipJoint`].
///
/// | file | module |
/// |---|---|
/// | `vision_model.post_layernorm.*` | `post_layernorm.*` |
/// | `visual_projection.*`, `text_model.*`, `text_projection.*` | the same |
pub(super) const JOINT: Rename = Rename {
    prefixes: &[("vision_model.post_layernorm.", "post_layernorm.")],
    ignored: &[
        Ignored { prefix: "vision_model.embeddings.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "vision_model.pre_layrnorm.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "vision_model.encoder.", suffix: "", why: VISION_SIDE },
        Ignored { prefix: "logit_scale", suffix: "", why: "a factor that changes no order" },
        Ignored { prefix: "text_model.", suffix: ".position_ids", why: BUFFER },
    ],
};
