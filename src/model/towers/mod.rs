//! Vision towers that several families use.

pub(super) mod clip;

use secateur_weights::find_config;

use super::config::{CONFIG, read_json};
use crate::Error;

/// Whether the checkpoint `id` is a vision tower: no model of its own, but a part that models name in their configs.
///
/// # Errors
/// When the checkpoint is not there, or its config cannot be read.
pub fn is_tower(id: &str) -> Result<bool, Error> {
    #[derive(serde::Deserialize)]
    struct Kind {
        model_type: Option<String>,
    }
    let kind: Kind = read_json(&find_config(id, None, &[])?.join(CONFIG))?;
    let kind = kind.model_type.unwrap_or_default();
    Ok(kind.starts_with("clip") || kind.starts_with("LanguageBind"))
}
