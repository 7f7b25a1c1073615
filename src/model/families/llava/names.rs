//! Tables from names in LLaVA's checkpoints to paths in modules, one for each layout.

use secateur_weights::{Ignored, Rename};

use crate::model::towers::clip::BUFFER;

/// The names of an original checkpoint and their paths in the module.
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
/// trained too. A copy that differs gets a note: [`crate::model::copies`].
pub(in crate::model::families) const ORIGINAL: Rename = Rename {
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
    parts: &[],
    ignored: &[
        Ignored { prefix: "model.layers.", suffix: ".rotary_emb.inv_freq", why: BUFFER },
        Ignored { prefix: "model.vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.image_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.video_tower.", suffix: ".position_ids", why: BUFFER },
    ],
};

/// The names of a llava-hf checkpoint and their paths in the module; the second half is the order of transformers 4.52 and later.
///
/// | file | module |
/// |---|---|
/// | `vision_tower.vision_model.*` | `vision_tower.*` |
/// | `multi_modal_projector.*` | `projector.*` |
/// | `language_model.model.*`, `language_model.lm_head.*` | `language_model.*` |
pub(in crate::model::families) const HF: Rename = Rename {
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
    parts: &[],
    ignored: &[
        Ignored { prefix: "vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "model.vision_tower.", suffix: ".position_ids", why: BUFFER },
        Ignored { prefix: "language_model.", suffix: ".rotary_emb.inv_freq", why: BUFFER },
    ],
};
