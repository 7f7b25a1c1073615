//! From a model id to a folder on this machine.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo};

use crate::WeightsError;

/// The folder of a checkpoint: `id` itself if it is a folder (also when taken relative to `beside`), else its
/// newest snapshot in the Hugging Face cache (`HF_HOME`, default `~/.cache/huggingface`).
///
/// # Errors
/// When there is neither.
pub fn find(id: &str, beside: Option<&Path>) -> Result<PathBuf, WeightsError> {
    let here = Path::new(id);
    let relative = beside.map(|folder| folder.join(id));
    if let Some(folder) = relative.into_iter().chain([here.to_owned()]).find(|folder| folder.is_dir()) {
        return Ok(folder);
    }
    let cache = Cache::from_env();
    let is_id = id.split('/').count() == 2 && !id.starts_with(['.', '/']);
    let cached = is_id.then(|| cache.repo(Repo::model(id.to_owned())).get("config.json")).flatten();
    cached
        .and_then(|config| config.parent().map(Path::to_owned))
        .ok_or_else(|| WeightsError::NotFound { id: id.to_owned(), cache: cache.path().clone() })
}
