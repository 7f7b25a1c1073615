//! The tensors of a checkpoint folder, listed but not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use crate::{StoredTensor, WeightsError, error::io, mapped::Mapped, safetensors, torch};

/// All tensors of a folder (or of one file), by the names in the files.
pub struct Checkpoint {
    /// Where they came from.
    pub path: PathBuf,
    /// Name to tensor.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// The index beside a sharded checkpoint, of which only the map from tensor to shard matters.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// What a folder may hold, in order of preference.
const SINGLE_AND_INDEX: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

impl Checkpoint {
    /// Lists the tensors of `folder`: safetensors before `.bin`, one file or shards with an index.
    ///
    /// # Errors
    /// When there is no checkpoint, a shard is missing or damaged, or the index and the shards disagree.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let Shards { paths, indexed } = Shards::find(folder)?;
        let mut tensors = BTreeMap::new();
        for path in paths {
            for (name, tensor) in read_file(&path)? {
                if tensors.insert(name.clone(), tensor).is_some() {
                    return Err(WeightsError::Damaged { path, reason: format!("tensor `{name}` is in two shards") });
                }
            }
        }
        match indexed.iter().find(|(name, _)| !tensors.contains_key(*name)) {
            None => Ok(Self { path: folder.to_owned(), tensors }),
            Some((name, shard)) => Err(WeightsError::Damaged {
                path: folder.join(shard),
                reason: format!("tensor `{name}` is in the index but not in the shard"),
            }),
        }
    }

    /// The files that [`Self::open`] reads.
    ///
    /// # Errors
    /// When there is no checkpoint, or a shard is missing.
    pub fn files(folder: &Path) -> Result<Vec<PathBuf>, WeightsError> {
        Ok(Shards::find(folder)?.paths)
    }

    /// Lists the tensors of one safetensors or `.bin` file.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        Ok(Self { path: path.to_owned(), tensors: read_file(path)? })
    }
}

/// The weights' files in a folder.
struct Shards {
    paths: Vec<PathBuf>,
    /// Which tensor the index says is in which; empty without an index.
    indexed: BTreeMap<String, String>,
}

impl Shards {
    fn find(folder: &Path) -> Result<Self, WeightsError> {
        for (single, index) in SINGLE_AND_INDEX {
            let (single, index) = (folder.join(single), folder.join(index));
            if index.is_file() {
                return Self::of_index(folder, &index);
            }
            if single.is_file() {
                return Ok(Self { paths: vec![single], indexed: BTreeMap::new() });
            }
        }
        let names = SINGLE_AND_INDEX.iter().flat_map(|(a, b)| [*a, *b]).collect::<Vec<_>>().join(", ");
        Err(WeightsError::Missing { path: folder.to_owned(), hint: format!("a checkpoint folder has one of {names}") })
    }

    fn of_index(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let text = std::fs::read_to_string(index).map_err(io(index))?;
        let ShardIndex { weight_map: indexed } = serde_json::from_str(&text)
            .map_err(|e| WeightsError::Damaged { path: index.to_owned(), reason: e.to_string() })?;
        let mut paths = Vec::new();
        for shard in indexed.values().collect::<BTreeSet<_>>() {
            let path = folder.join(shard);
            if !Path::new(shard).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
                let reason = format!("it names the shard `{shard}`, which is outside the checkpoint's folder");
                return Err(WeightsError::Unsupported { path: index.to_owned(), reason });
            }
            if !path.is_file() {
                let hint = format!("{} names it as a shard; fetch the whole checkpoint", index.display());
                return Err(WeightsError::Missing { path, hint });
            }
            paths.push(path);
        }
        Ok(Self { paths, indexed })
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let file = Mapped::open(path)?;
    let is_bin = path.extension().is_some_and(|extension| extension == "bin");
    // A PyTorch file is a zip archive. A safetensors file starts with its header's length, which may be the same
    // bytes, and the header with a brace.
    if is_bin || (file.bytes().starts_with(b"PK\x03\x04") && file.bytes().get(8) != Some(&b'{')) {
        torch::list(path, &file)
    } else {
        safetensors::list(path, &file)
    }
}
