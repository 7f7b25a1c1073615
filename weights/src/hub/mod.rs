//! From the id of a model or a data set to files on this machine.

mod cache;
mod cached;
mod client;
mod fetch;
mod http;
mod verify;

use std::path::{Path, PathBuf};

pub use cache::cache_root;
use cache::{RepoCache, is_plain_name};
use cached::is_there;
pub use fetch::stay_offline;

use crate::{Checkpoint, WeightsError};

/// The kind of repository that an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A checkpoint.
    Model,
    /// A data set.
    DataSet,
}

impl Kind {
    /// The plural in the hub's addresses and the cache's folders.
    fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            Self::DataSet => "datasets",
        }
    }

    /// Advice on what to do if the repository cannot be fetched.
    fn advice(self, id: &str) -> String {
        match self {
            Self::Model => format!(
                "without it, give a folder (--model DIR), use --model demo, or fetch it where there is a network with \
                 `secateur pull {id}`"
            ),
            Self::DataSet => {
                "without it, give the benchmark's folder (--data DIR), or fetch it where there is a network \
                              with `secateur pull` and the benchmark's name"
                    .to_owned()
            }
        }
    }
}

/// Small files that a checkpoint may have, beside its weights.
const SMALL: [&str; 8] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
    "generation_config.json",
];

/// The folder of a checkpoint's small files: `id` itself if it is a folder (also when taken relative to `beside`), else
/// its newest snapshot in the Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`), which is downloaded
/// from the hub (`HF_ENDPOINT`, `HF_TOKEN`) unless `HF_HUB_OFFLINE` forbids it. No weights are fetched, so that a model
/// that is not supported can be refused before gigabytes are downloaded. In the cache, one file of each list of
/// `needed` must be there.
///
/// # Errors
/// When there is no such folder and no such model, the hub does not answer, or a download is damaged.
pub fn find_config(id: &str, beside: Option<&Path>, needed: &[&[&str]]) -> Result<PathBuf, WeightsError> {
    let small =
        |names: &[String]| checkpoint_files(names).into_iter().filter(|name| SMALL.contains(&&name[..])).collect();
    if let Some(folder) = local(id, beside)? {
        return Ok(folder);
    }
    let cache = RepoCache::new(Kind::Model, id);
    let cached = cache.commit().map(|commit| cache.snapshot(&commit));
    let lacks = |folder: &PathBuf| {
        let all = std::iter::once(&["config.json"][..]).chain(needed.iter().copied());
        all.into_iter()
            .find(|names| !names.iter().any(|name| is_there(&folder.join(name))))
            .map(|names| names.join(" or "))
    };
    match cached.map(|folder| (lacks(&folder), folder)) {
        Some((None, folder)) => Ok(folder),
        Some((Some(missing), _)) if fetch::offline() => Err(fetch::not_cached(id, Kind::Model, Some(&missing))),
        None if fetch::offline() && cache.is_known() => Err(fetch::not_cached(id, Kind::Model, Some("config.json"))),
        _ => fetched(id, &small),
    }
}

/// The folder of a whole checkpoint, with its weights. It is looked up as in [`find_config`], and missing files are
/// fetched from the hub.
///
/// # Errors
/// As [`find_config`].
pub fn find(id: &str, beside: Option<&Path>) -> Result<PathBuf, WeightsError> {
    find_with(id, beside, true)
}

/// A GGUF file: a path, or `owner/name:FILE.gguf` on the hub. With the first part of a split file, the others are fetched, too.
///
/// # Errors
/// As [`find_config`].
pub fn find_gguf(name: &str) -> Result<PathBuf, WeightsError> {
    let path = PathBuf::from(name);
    let on_hub = name.split_once(':').filter(|(id, file)| is_id(id) && is_plain_name(file) && !path.exists());
    let Some((id, file)) = on_hub else {
        let hint = "give a GGUF file, or one on the hub as owner/name:FILE.gguf".to_owned();
        return if path.is_file() { Ok(path) } else { Err(WeightsError::Missing { path, hint }) };
    };
    let cache = RepoCache::new(Kind::Model, id);
    let cached = cache.commit().map(|commit| cache.snapshot(&commit).join(file)).filter(|path| is_there(path));
    match (cached, file.split_once("-00001-of-")) {
        (Some(path), None) => return Ok(path),
        // Parts that are missing show when the file is opened.
        (Some(path), Some(_)) if fetch::offline() => return Ok(path),
        (None, _) if fetch::offline() => return Err(fetch::not_cached(id, Kind::Model, Some(file))),
        _ => {}
    }
    let is_part = |other: &String| match file.split_once("-00001-of-") {
        Some((start, end)) => other.strip_prefix(start).is_some_and(|rest| rest.ends_with(&format!("-of-{end}"))),
        None => other == file,
    };
    let choose = |names: &[String]| names.iter().filter(|name| is_part(name)).cloned().collect();
    Ok(fetch::files(id, Kind::Model, false, &choose)?.swap_remove(0))
}

/// The folder of a vision tower, of which only config and weights are read: it needs no tokenizer.
///
/// # Errors
/// As [`find_config`].
pub fn find_tower(id: &str, beside: Option<&Path>) -> Result<PathBuf, WeightsError> {
    find_with(id, beside, false)
}

fn find_with(id: &str, beside: Option<&Path>, speaks: bool) -> Result<PathBuf, WeightsError> {
    if let Some(folder) = local(id, beside)? {
        return Ok(folder);
    }
    let cache = RepoCache::new(Kind::Model, id);
    let Some(folder) = cache.commit().map(|commit| cache.snapshot(&commit)) else {
        return fetched(id, &checkpoint_files);
    };
    let missing = missing_file(&folder, speaks);
    match missing {
        None => Ok(folder),
        Some(missing) if fetch::offline() => Err(fetch::not_cached(id, Kind::Model, Some(&missing))),
        Some(_) => fetched(id, &checkpoint_files),
    }
}

/// The file that a snapshot in the cache lacks, in words; `None` if it is whole.
fn missing_file(folder: &Path, speaks: bool) -> Option<String> {
    if !is_there(&folder.join("config.json")) {
        return Some("config.json".to_owned());
    }
    if speaks && !["tokenizer.model", "tokenizer.json"].iter().any(|name| is_there(&folder.join(name))) {
        return Some("its tokenizer (tokenizer.model or tokenizer.json)".to_owned());
    }
    match Checkpoint::files(folder) {
        Err(WeightsError::Missing { path, .. }) if path != folder => {
            Some(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
        }
        Err(_) => Some("its weights (model.safetensors or pytorch_model.bin, or shards with an index)".to_owned()),
        Ok(_) => None,
    }
}

/// The folder that `id` names as a path; `None` if it is an id of the hub.
fn local(id: &str, beside: Option<&Path>) -> Result<Option<PathBuf>, WeightsError> {
    let relative = beside.map(|folder| folder.join(id));
    let found = relative.into_iter().chain([PathBuf::from(id)]).find(|path| path.exists());
    match found {
        Some(path) if path.is_dir() => Ok(Some(path)),
        Some(path) => Err(not_a_folder(&path)),
        None if id.contains("://") => Err(WeightsError::Unsupported {
            path: PathBuf::from(id),
            reason:
                "an address, where a folder or an id is expected: give the id alone, as in llava-hf/llava-1.5-7b-hf"
                    .to_owned(),
        }),
        None if is_id(id) => Ok(None),
        None => Err(WeightsError::NoFolder { id: id.to_owned() }),
    }
}

/// The error for a file in place of a checkpoint's folder.
fn not_a_folder(path: &Path) -> WeightsError {
    let mut start = [0; 4];
    // Only a regular file is opened: a pipe that nobody writes to would be waited for.
    let mut read = || std::io::Read::read_exact(&mut std::fs::File::open(path)?, &mut start);
    let is_gguf = path.is_file() && read().is_ok() && &start == b"GGUF"
        || path.extension().is_some_and(|extension| extension == "gguf");
    let reason = if is_gguf {
        "a GGUF file, where a folder is expected"
    } else {
        "a file, and no folder; give the folder of a checkpoint, with its config.json"
    };
    WeightsError::Unsupported { path: path.to_owned(), reason: reason.to_owned() }
}

/// The folder of a snapshot with the files that `choose` picks from all names.
fn fetched(id: &str, choose: &dyn Fn(&[String]) -> Vec<String>) -> Result<PathBuf, WeightsError> {
    let files = fetch::files(id, Kind::Model, true, choose)?;
    // No chosen name has a folder of its own.
    Ok(files[0].parent().map(Path::to_owned).unwrap_or_default())
}

/// The files of a data set that `wanted` chooses by name, from the cache or the hub, in the order of their names.
///
/// # Errors
/// As [`find`], or when there is no such file.
pub fn find_data(id: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>, WeightsError> {
    let choose = |names: &[String]| names.iter().filter(|name| wanted(name)).cloned().collect();
    if !fetch::offline() {
        return fetch::files(id, Kind::DataSet, true, &choose);
    }
    cached::data_set(id, &choose).map_err(|missing| fetch::not_cached(id, Kind::DataSet, missing.as_deref()))
}

/// The commit of a data set that is in the cache.
pub fn cached_commit(id: &str) -> Option<String> {
    RepoCache::new(Kind::DataSet, id).commit()
}

/// Whether `id` has the form `owner/name` of a hub's ids.
fn is_id(id: &str) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    id.split('/').count() == 2 && id.split('/').all(plain)
}

/// The files of a checkpoint that are read: the small ones, and the weights in the preferred format.
fn checkpoint_files(names: &[String]) -> Vec<String> {
    let of = |ends: &[&str]| -> Vec<String> {
        let top = |name: &&String| !name.contains('/') && ends.iter().any(|end| name.ends_with(end));
        names.iter().filter(top).cloned().collect()
    };
    let safe = of(&[".safetensors", ".safetensors.index.json"]);
    let torch = || {
        let all = of(&[".bin", ".bin.index.json"]);
        all.into_iter().filter(|name| name.starts_with("pytorch_model")).collect()
    };
    let weights = if safe.is_empty() { torch() } else { safe };
    names.iter().filter(|name| SMALL.contains(&name.as_str())).cloned().chain(weights).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in ["liuhaotian/llava-v1.5-7b", "a/b"] {
            assert!(is_id(id), "{id}");
        }
        for path in ["", "a", "/a", "a/", "a/b/c", "./a", "../a", "a/..", "a b/c", "a/b?c"] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn safetensors_are_preferred_and_nothing_else_is_fetched() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let both =
            names(&["README.md", "config.json", "model.safetensors", "pytorch_model.bin", "onnx/model.safetensors"]);
        assert_eq!(checkpoint_files(&both), ["config.json", "model.safetensors"]);
        let torch = names(&[
            "config.json",
            "mm_projector.bin",
            "pytorch_model.bin.index.json",
            "pytorch_model-00001-of-00001.bin",
            "tf_model.h5",
        ]);
        assert_eq!(
            checkpoint_files(&torch),
            ["config.json", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"]
        );
    }
}
