//! The file `generation_config.json`, of which the end tokens are read.

use std::path::Path;

use serde::Deserialize;

use super::read_json;
use crate::Error;

/// The settings of transformers' `generate` beside a checkpoint.
pub(in crate::model) const GENERATION_CONFIG: &str = "generation_config.json";

#[derive(Deserialize)]
struct RawGeneration {
    eos_token_id: Option<Ids>,
}

/// The id of an end token, or a list of such ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

/// The ids that end an answer by the file in `folder`; none where there is no file, or the file names none.
///
/// # Errors
/// When the file cannot be read.
pub(in crate::model) fn end_tokens(folder: &Path) -> Result<Vec<u32>, Error> {
    let path = folder.join(GENERATION_CONFIG);
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let raw: RawGeneration = read_json(&path)?;
    Ok(match raw.eos_token_id {
        None => Vec::new(),
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Several(ids)) => ids,
    })
}
