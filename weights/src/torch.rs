//! PyTorch's `.bin` files (torch 1.6 and later): a zip archive, uncompressed, of a pickle that describes the tensors
//! and one entry a storage. The entries are read in place.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
    ops::Range,
    path::Path,
};

use zip::{CompressionMethod, ZipArchive};

use crate::{
    StoredTensor, WeightsError,
    mapped::Mapped,
    pickle::{self, PickleError, Tensor, Value},
};

/// Where the storages lie in the file, by their keys.
type Storages = HashMap<String, Range<usize>>;

/// The largest pickle that is read: a state dict of ten thousand tensors takes about 2 MiB.
const MAX_PICKLE: u64 = 256 << 20;

/// Every tensor of the file.
pub(crate) fn list(path: &Path, file: &Mapped) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let damaged = |reason: String| WeightsError::Damaged { path: path.to_owned(), reason };
    let unsupported = |reason: String| WeightsError::Unsupported { path: path.to_owned(), reason };
    if !file.bytes().starts_with(b"PK") {
        return Err(unsupported(
            "not a zip archive, so not a PyTorch file of torch 1.6 or later; save it again with a newer torch, or as \
             safetensors"
                .to_owned(),
        ));
    }
    let (pickle, storages) = open_archive(file).map_err(damaged)?;
    let value = pickle::read(&pickle).map_err(|e| match e {
        PickleError::Foreign(reason) => unsupported(reason),
        PickleError::Malformed(reason) => damaged(reason),
    })?;
    let Value::Dict(entries) = value else {
        return Err(unsupported("its pickle is no state dict".to_owned()));
    };
    let mut tensors = BTreeMap::new();
    for (key, value) in entries {
        match (key, value) {
            (Value::Text(name), Value::Tensor(tensor)) => {
                let range = locate(&tensor, &storages).map_err(|why| damaged(format!("tensor `{name}`: {why}")))?;
                let dtype = tensor.storage.dtype;
                tensors
                    .insert(name.to_string(), StoredTensor { shape: tensor.shape, dtype, file: file.clone(), range });
            }
            (key, _) => return Err(unsupported(format!("its state dict has an entry {key:?} that is no tensor"))),
        }
    }
    Ok(tensors)
}

/// The pickle, and where each storage lies in the file.
fn open_archive(file: &Mapped) -> Result<(Vec<u8>, Storages), String> {
    let mut archive = ZipArchive::new(Cursor::new(file.bytes())).map_err(|e| e.to_string())?;
    let mut pickle = None;
    let mut storages = HashMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index_raw(i).map_err(|e| e.to_string())?;
        let name = entry.name().to_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("entry `{name}` is compressed, which PyTorch never does"));
        }
        if name == "data.pkl" || name.ends_with("/data.pkl") {
            if entry.size() > MAX_PICKLE {
                return Err(format!("`{name}` has {} bytes; up to {MAX_PICKLE} are read", entry.size()));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
            pickle = Some(bytes);
        } else if let Some((_, key)) = name.rsplit_once("data/") {
            let start = entry.data_start().ok_or_else(|| format!("entry `{name}` has no data"))? as usize;
            let end = start.checked_add(entry.size() as usize).filter(|&end| end <= file.bytes().len());
            storages.insert(key.to_owned(), start..end.ok_or_else(|| format!("entry `{name}` runs past the end"))?);
        }
    }
    Ok((pickle.ok_or("it holds no data.pkl")?, storages))
}

/// The bytes of a tensor, which must be contiguous and inside its storage.
fn locate(tensor: &Tensor, storages: &Storages) -> Result<Range<usize>, String> {
    let overflow = || "its shape overflows".to_owned();
    if tensor.shape.len() != tensor.strides.len() {
        return Err(format!("it has shape {:?} and strides {:?}", tensor.shape, tensor.strides));
    }
    let mut expected = 1usize;
    for (&dim, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        if dim != 1 && stride != expected {
            return Err(format!("it is not contiguous (strides {:?})", tensor.strides));
        }
        expected = expected.checked_mul(dim).ok_or_else(overflow)?;
    }
    let size = tensor.storage.dtype.size();
    let storage = storages.get(&*tensor.storage.key).ok_or("its storage is not in the archive")?;
    let stored = storage.len() / size;
    let end = tensor.offset.checked_add(expected).ok_or_else(overflow)?;
    if end > stored || tensor.storage.len > stored {
        return Err(format!("it ends at element {end}, but its storage has {stored}"));
    }
    Ok(storage.start + tensor.offset * size..storage.start + end * size)
}
