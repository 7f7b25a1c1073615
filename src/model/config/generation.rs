//! The file `generation_config.json`, of which the end tokens and the penalty for repetition are read.

use std::path::Path;

use serde::Deserialize;

use super::read_json;
use crate::Error;

/// The settings of transformers' `generate` beside a checkpoint.
pub(in crate::model) const GENERATION_CONFIG: &str = "generation_config.json";

#[derive(Deserialize)]
struct RawGeneration {
    eos_token_id: Option<Ids>,
    repetition_penalty: Option<f32>,
}

/// The settings for answers in a checkpoint's folder.
pub(in crate::model) struct Generation {
    /// The ids that end an answer; none where the file names none.
    pub(in crate::model) ends: Vec<u32>,
    /// The penalty for repetition; 1 where the file names none.
    pub(in crate::model) penalty: f32,
}

/// The id of an end token, or a list of such ids.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Several(Vec<u32>),
}

impl Generation {
    /// Reads the file in `folder`, which may have none.
    ///
    /// # Errors
    /// When the file cannot be read, or the penalty is none.
    pub(in crate::model) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(GENERATION_CONFIG);
        if !path.is_file() {
            return Ok(Self { ends: Vec::new(), penalty: 1.0 });
        }
        let raw: RawGeneration = read_json(&path)?;
        let penalty = raw.repetition_penalty.unwrap_or(1.0);
        if !(penalty.is_finite() && penalty > 0.0) {
            let reason = format!("repetition_penalty is {penalty}; a number above 0 is expected, 1 for none");
            return Err(Error::config(&path, reason));
        }
        let ends = match raw.eos_token_id {
            None => Vec::new(),
            Some(Ids::One(id)) => vec![id],
            Some(Ids::Several(ids)) => ids,
        };
        Ok(Self { ends, penalty })
    }
}
