//! Errors for names of checkpoints that lead to none.

use std::path::{Path, PathBuf};

use secateur_weights::{WeightsError, printable};

use super::CONFIG;
use crate::Error;

/// The folder `found` for the checkpoint `name` in the config's field `field`, or an error that tells what to put there instead.
pub(in crate::model) fn named_in_config(
    path: &Path,
    field: &str,
    name: &str,
    found: Result<PathBuf, WeightsError>,
) -> Result<PathBuf, Error> {
    let shown = printable(name);
    let advice = match field {
        "mm_vision_tower" => {
            "put the folder of that checkpoint there, or its id: LLaVA-1.5's is openai/clip-vit-large-patch14-336"
        }
        "mm_image_tower" => "put the folder of that checkpoint there, or its id: LanguageBind/LanguageBind_Image",
        _ => "put the folder of that checkpoint there, or its id: LanguageBind/LanguageBind_Video_merge",
    };
    let reason = match found {
        Ok(folder) if folder.join(CONFIG).is_file() => return Ok(folder),
        Ok(_) => format!("{field} names `{shown}`, a folder without a {CONFIG}"),
        Err(WeightsError::Unsupported { reason, .. }) => format!("{field} names `{shown}`, {reason}"),
        Err(WeightsError::NoFolder { .. }) => {
            format!("{field} names `{shown}`, which is no folder here, and no id of the hub")
        }
        Err(WeightsError::Hub { reason, .. }) => format!("{field} names `{shown}`, which {reason}"),
        Err(error) => return Err(error.into()),
    };
    Err(Error::config(path, format!("{reason}; {advice}")))
}

/// The error for a folder without a config.
pub(in crate::model) fn no_checkpoint(folder: &Path) -> Error {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut inner: Vec<String> = entries
        .filter(|entry| entry.path().join(CONFIG).is_file())
        .map(|entry| printable(&entry.file_name().to_string_lossy()))
        .collect();
    inner.sort();
    let reason = match inner.len() {
        0 => format!("there is no {CONFIG} in this folder, so it is no checkpoint"),
        _ => format!("there is no {CONFIG} in this folder itself; give one of the folders in it: {}", inner.join(", ")),
    };
    Error::config(folder, reason)
}
