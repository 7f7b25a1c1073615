//! From the id of a model or a data set to files on this machine.

mod cached;
mod client;
mod fetch;
mod verify;

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use crate::{Checkpoint, WeightsError};

/// What an id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A checkpoint.
    Model,
    /// A data set.
    DataSet,
}

impl Kind {
    fn repo(self, id: &str) -> Repo {
        let kind = match self {
            Self::Model => RepoType::Model,
            Self::DataSet => RepoType::Dataset,
        };
        Repo::new(id.to_owned(), kind)
    }

    /// What to do where the hub does not have it.
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
const SMALL: [&str; 6] = [
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "added_tokens.json",
];

/// The folder of a checkpoint: `id` itself if it is a folder (also when taken relative to `beside`), else its
/// newest snapshot in the Hugging Face cache (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`), which is downloaded, or
/// completed, from the hub (`HF_ENDPOINT`, `HF_TOKEN`) unless `HF_HUB_OFFLINE` forbids it.
///
/// # Errors
/// When there is no such folder and no such model, the hub does not answer, or what it sends is damaged.
pub fn find(id: &str, beside: Option<&Path>) -> Result<PathBuf, WeightsError> {
    find_with(id, beside, true)
}

/// The same for a vision tower of which only config and weights are read: its folder is whole without a tokenizer.
///
/// # Errors
/// As [`find`].
pub fn find_tower(id: &str, beside: Option<&Path>) -> Result<PathBuf, WeightsError> {
    find_with(id, beside, false)
}

fn find_with(id: &str, beside: Option<&Path>, speaks: bool) -> Result<PathBuf, WeightsError> {
    let here = Path::new(id);
    let relative = beside.map(|folder| folder.join(id));
    if let Some(folder) = relative.into_iter().chain([here.to_owned()]).find(|folder| folder.is_dir()) {
        return Ok(folder);
    }
    let cache = cache();
    if !is_id(id) {
        return Err(WeightsError::NoFolder { id: id.to_owned() });
    }
    let cached = cache.repo(Kind::Model.repo(id)).get("config.json");
    let cached = cached.and_then(|config| config.parent().map(Path::to_owned));
    let Some(folder) = cached else { return fetch::folder(id, Kind::Model, &checkpoint_files) };
    let unsound = cached::unsound(&folder);
    if let Some(name) = unsound.as_ref().filter(|_| fetch::offline()) {
        let reason = format!("is damaged in the cache ({name}), and HF_HUB_OFFLINE forbids the network");
        return Err(WeightsError::Hub { id: id.to_owned(), reason, advice: Kind::Model.advice(id) });
    }
    let weights = unsound.is_none() && Checkpoint::files(&folder).is_ok();
    let tokenizer = ["tokenizer.model", "tokenizer.json"].iter().any(|name| folder.join(name).is_file());
    if weights && (tokenizer || !speaks) {
        return Ok(folder);
    }
    match fetch::folder(id, Kind::Model, &checkpoint_files) {
        // Not every use of a checkpoint needs its tokenizer; without a network, what is missing is reported by its name.
        Err(_) if weights || fetch::offline() => Ok(folder),
        fetched => fetched,
    }
}

/// The files of a data set that `wanted` chooses by name, from the cache or the hub, in the order of their names.
///
/// # Errors
/// As [`find`], or when there is no such file.
pub fn find_data(id: &str, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>, WeightsError> {
    let choose = |names: &[String]| names.iter().filter(|name| wanted(name)).cloned().collect();
    let cached = if fetch::offline() { cached::data_set(id, &choose) } else { None };
    cached.map_or_else(|| fetch::files(id, Kind::DataSet, &choose), Ok)
}

/// Hugging Face's cache, where its own tools look too.
fn cache() -> Cache {
    Cache::new(folder_in("HF_HUB_CACHE").unwrap_or_else(|| cache_root().join("hub")))
}

/// Where what is made of downloads may be kept: beside Hugging Face's cache, in the folder that its own tools take as home.
pub fn cache_root() -> PathBuf {
    let in_home = || std::env::home_dir().unwrap_or_default().join(".cache");
    folder_in("HF_HOME").unwrap_or_else(|| folder_in("XDG_CACHE_HOME").unwrap_or_else(in_home).join("huggingface"))
}

/// The folder that a variable of the environment names; `~` is the home, as for Python.
fn folder_in(variable: &str) -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os(variable).filter(|path| !path.is_empty())?);
    match path.strip_prefix("~") {
        Ok(rest) => Some(std::env::home_dir()?.join(rest)),
        Err(_) => Some(path),
    }
}

/// The commit of a data set that is in the cache.
pub fn cached_commit(id: &str) -> Option<String> {
    let blobs = cache().repo(Kind::DataSet.repo(id)).blob_path("");
    let commit = std::fs::read_to_string(blobs.parent()?.join("refs/main")).ok()?;
    Some(commit.trim().to_owned()).filter(|commit| !commit.is_empty())
}

/// `owner/name`, as a hub has it.
fn is_id(id: &str) -> bool {
    let plain = |part: &str| {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(known)
    };
    id.split('/').count() == 2 && id.split('/').all(plain)
}

/// The files of a checkpoint that are read: small ones, and weights in the better of the two formats.
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
