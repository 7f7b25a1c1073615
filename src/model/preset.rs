//! Presets: models of a named shape with random weights, made on the machine where they run, so that a benchmark needs no checkpoint of 13 GB.

use super::{
    Beside, Checkpoint, DEMO,
    families::{Family, presets as shapes},
    open,
    towers::clip::{ClipTextConfig, TextSide},
};
use crate::Error;

/// The names of all presets, the built-in checkpoint among them.
pub fn presets() -> Vec<&'static str> {
    let mut names = shapes();
    names.push(DEMO);
    names
}

/// A model of the shape `name`, whose tokenizer is that of the built-in checkpoint.
///
/// # Errors
/// When there is no such shape.
pub fn preset(name: &str) -> Result<Checkpoint, Error> {
    if name == DEMO {
        return open(DEMO, Beside::default());
    }
    let known = || presets().join(", ");
    let family = Family::preset(name).ok_or_else(|| Error::UnknownShape { name: name.to_owned(), known: known() })?;
    Ok(Checkpoint { family, random: true, ..open(DEMO, Beside::default())? })
}

/// CLIP-L's text side for a preset, with the tokenizer of the built-in checkpoint, whose own text side is smaller.
///
/// # Errors
/// When the family has no text side.
pub(super) fn text_side(checkpoint: &Checkpoint) -> Result<TextSide, Error> {
    checkpoint.check_text_side()?;
    let mut config = ClipTextConfig::default();
    (config.hidden_size, config.intermediate_size) = (768, 3072);
    (config.num_attention_heads, config.projection_dim) = (12, 768);
    Ok(TextSide { config, ..open(DEMO, Beside::default())?.text_side()? })
}
