//! The tensors of a checkpoint folder, listed but not read.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    StoredTensor, WeightsError,
    error::text_error,
    folder::what_else,
    mapped::Mapped,
    safetensors,
    text::{impostor, parse_json, read_text},
    torch,
};

/// All tensors of a folder (or of one file), by the names in the files.
pub struct Checkpoint {
    /// The folder or file that the tensors are in.
    pub path: PathBuf,
    /// The tensors by their names.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// The files of a checkpoint's weights.
#[derive(Debug, Default)]
pub struct WeightFiles {
    /// The files, in the order in which they are read.
    pub paths: Vec<PathBuf>,
    /// Notes on the choice of files, if the folder leaves a choice.
    pub notes: Vec<String>,
    /// The shard of each tensor by the index; empty without an index.
    indexed: BTreeMap<String, String>,
}

/// The index beside a sharded checkpoint, of which only the map from tensor to shard matters.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// The weight files that a folder may hold, in order of preference.
const SINGLE_AND_INDEX: [(&str, &str); 2] =
    [("model.safetensors", "model.safetensors.index.json"), ("pytorch_model.bin", "pytorch_model.bin.index.json")];

impl Checkpoint {
    /// Lists the tensors of `folder`: safetensors before `.bin`, one file or shards with an index.
    ///
    /// # Errors
    /// When there is no checkpoint, a shard is missing or damaged, or the index and the shards disagree.
    pub fn open(folder: &Path) -> Result<Self, WeightsError> {
        let WeightFiles { paths, indexed, .. } = WeightFiles::find(folder)?;
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
        Ok(WeightFiles::find(folder)?.paths)
    }

    /// Lists the tensors of one safetensors or `.bin` file.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        Ok(Self { path: path.to_owned(), tensors: read_file(path)? })
    }
}

impl WeightFiles {
    /// The files of the weights in `folder`.
    ///
    /// # Errors
    /// When there is no checkpoint (the error says what the folder is instead, if that is known), or a shard is missing.
    pub fn find(folder: &Path) -> Result<Self, WeightsError> {
        let mut stale: Option<(String, WeightsError)> = None;
        for (single_name, index_name) in SINGLE_AND_INDEX {
            let (single, index) = (folder.join(single_name), folder.join(index_name));
            let found = match index.is_file() {
                true => Self::of_index(folder, &index),
                false if single.is_file() => Ok(Self { paths: vec![single.clone()], ..Self::default() }),
                false => continue,
            };
            match found {
                Ok(found) => return Ok(found.noted(folder, stale.map(|(note, _)| note))),
                // The index belongs to other files, and a whole set of weights is beside it.
                Err(WeightsError::Missing { path, .. }) if single.is_file() => {
                    let note = foreign_index(&index, &path, single_name);
                    return Ok(Self { paths: vec![single], ..Self::default() }.noted(folder, Some(note)));
                }
                Err(WeightsError::Missing { path, hint }) => {
                    let others = other_weights(folder, &[]);
                    let foreign = others.first().filter(|other| !hint.contains(other.as_str())).map(|other| {
                        let index = index.display();
                        format!("{index} names it, and the folder has {other}: the index does not belong to these files: remove it, and fetch theirs")
                    });
                    let hint = foreign.unwrap_or(hint);
                    stale.get_or_insert((
                        foreign_index(&index, &path, "the other set of weights"),
                        WeightsError::Missing { path, hint },
                    ));
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((_, error)) = stale {
            return Err(error);
        }
        if let Some(what) = what_else(folder) {
            return Err(WeightsError::Unsupported {
                path: folder.to_owned(),
                reason: format!("this folder holds {what}"),
            });
        }
        let names = SINGLE_AND_INDEX.iter().flat_map(|(a, b)| [*a, *b]).collect::<Vec<_>>().join(", ");
        Err(WeightsError::Missing { path: folder.to_owned(), hint: format!("a checkpoint folder has one of {names}") })
    }

    /// Adds notes about other weight files in the folder.
    fn noted(mut self, folder: &Path, stale: Option<String>) -> Self {
        let own: Vec<String> =
            self.paths.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
        self.notes.extend(stale);
        let others = other_weights(folder, &own);
        if let Some(first) = others.first().filter(|_| self.notes.is_empty()) {
            let more = match others.len() - 1 {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let read = own.first().map_or("", String::as_str);
            self.notes.push(format!(
                "{}: the folder has other files of weights, {first}{more}; {read}{} read, and not these",
                folder.display(),
                if own.len() > 1 { " and its shards are" } else { " is" },
            ));
        }
        self
    }

    fn of_index(folder: &Path, index: &Path) -> Result<Self, WeightsError> {
        let text = read_text(index).map_err(text_error(index))?;
        let ShardIndex { weight_map: indexed } =
            parse_json(&text).map_err(|reason| WeightsError::Damaged { path: index.to_owned(), reason })?;
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
        if paths.is_empty() {
            let reason = "its weight_map names no shard".to_owned();
            return Err(WeightsError::Damaged { path: index.to_owned(), reason });
        }
        Ok(Self { paths, notes: Vec::new(), indexed })
    }
}

/// A note on an index that belongs to other files.
fn foreign_index(index: &Path, missing: &Path, read: &str) -> String {
    let missing = missing.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "{}: it names {missing}, which is not there, so it belongs to other files; {read} is read, remove the index",
        index.display()
    )
}

/// The names of weight files in `folder` that are not among `own`.
fn other_weights(folder: &Path, own: &[String]) -> Vec<String> {
    let is_weights = |name: &String| {
        name.ends_with(".safetensors")
            || name.ends_with(".bin") && (name.starts_with("pytorch_model") || name == "mm_projector.bin")
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut others: Vec<String> = names.filter(is_weights).filter(|name| !own.contains(name)).collect();
    others.sort();
    others
}

fn read_file(path: &Path) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let file = Mapped::open(path)?;
    if let Some(impostor) = impostor(&file.bytes()[..file.bytes().len().min(512)]) {
        return Err(WeightsError::Unsupported { path: path.to_owned(), reason: impostor.to_owned() });
    }
    if file.bytes().starts_with(b"GGUF") {
        let reason = "a GGUF file, in the place of another form of weights; give it as --model FILE.gguf".to_owned();
        return Err(WeightsError::Unsupported { path: path.to_owned(), reason });
    }
    let is_bin = path.extension().is_some_and(|extension| extension == "bin");
    // A PyTorch file is a zip archive. A safetensors file starts with its header's length, which may be the same
    // bytes, and the header with a brace.
    if is_bin || (file.bytes().starts_with(b"PK\x03\x04") && file.bytes().get(8) != Some(&b'{')) {
        torch::list(path, &file)
    } else {
        safetensors::list(path, &file)
    }
}
