//! PyTorch's `.bin` files (torch 1.6 and later): an uncompressed zip archive of a pickle that describes the tensors,
//! and an entry for each storage. The entries are read in place.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
    ops::Range,
    path::Path,
};

use zip::{CompressionMethod, ZipArchive};

use secateur_blocks::RowOrder;

use crate::{
    StoredTensor, WeightsError,
    mapped::Mapped,
    pickle::{self, PickleError, Tensor, Value},
};

/// The bytes of the storages in the file, by their keys.
type Storages = HashMap<String, Range<usize>>;

/// The largest pickle that is read: a state dict of ten thousand tensors takes about 2 MiB.
const MAX_PICKLE: u64 = 16 << 20;

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
    let Archive { pickle, storages, big_endian } = open_archive(file).map_err(damaged)?;
    if big_endian {
        return Err(unsupported("its numbers are big-endian; save it again on a little-endian machine".to_owned()));
    }
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
                let (range, strides) =
                    locate(&tensor, &storages).map_err(|why| damaged(format!("tensor `{name}`: {why}")))?;
                let (shape, dtype, name) = (tensor.shape.clone(), tensor.storage.dtype, name.as_ref().into());
                let stored = StoredTensor {
                    shape,
                    dtype,
                    blocks: None,
                    order: RowOrder::Plain,
                    name,
                    file: file.clone(),
                    range,
                    strides,
                };
                tensors.insert(stored.name.to_string(), stored);
            }
            (key, _) => return Err(unsupported(format!("its state dict has an entry {key:?} that is no tensor"))),
        }
    }
    Ok(tensors)
}

/// The contents of the archive.
struct Archive {
    pickle: Vec<u8>,
    storages: Storages,
    big_endian: bool,
}

fn open_archive(file: &Mapped) -> Result<Archive, String> {
    let mut archive = ZipArchive::new(Cursor::new(file.bytes())).map_err(|_| "the zip archive in it cannot be read")?;
    let mut pickle = None;
    let mut storages = HashMap::new();
    let mut big_endian = false;
    for i in 0..archive.len() {
        let mut entry = archive.by_index_raw(i).map_err(|_| format!("entry {i} of its zip archive cannot be read"))?;
        let name = entry.name().to_owned();
        if entry.compression() != CompressionMethod::Stored {
            return Err(format!("entry `{name}` is compressed, which PyTorch never does"));
        }
        if name == "data.pkl" || name.ends_with("/data.pkl") {
            if entry.size() > MAX_PICKLE {
                return Err(format!("`{name}` has {} bytes; up to {MAX_PICKLE} are read", entry.size()));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|_| format!("`{name}` is cut short"))?;
            pickle = Some(bytes);
        } else if name == "byteorder" || name.ends_with("/byteorder") {
            let mut order = Vec::new();
            entry.take(4).read_to_end(&mut order).map_err(|_| format!("`{name}` is cut short"))?;
            big_endian = order.starts_with(b"big");
        } else if let Some((_, key)) = name.rsplit_once("data/") {
            let start = entry.data_start().ok_or_else(|| format!("entry `{name}` has no data"))? as usize;
            let end = start.checked_add(entry.size() as usize).filter(|&end| end <= file.bytes().len());
            storages.insert(key.to_owned(), start..end.ok_or_else(|| format!("entry `{name}` runs past the end"))?);
        }
    }
    Ok(Archive { pickle: pickle.ok_or("it holds no data.pkl")?, storages, big_endian })
}

/// The bytes from a tensor's first element to its last, which must be inside its storage. Also the strides, unless the
/// elements lie there in order without gaps. The published CLIP towers have projections that are stored transposed.
fn locate(tensor: &Tensor, storages: &Storages) -> Result<(Range<usize>, Option<Vec<usize>>), String> {
    let overflow = || "its shape overflows".to_owned();
    if tensor.shape.len() != tensor.strides.len() {
        return Err(format!("it has shape {:?} and strides {:?}", tensor.shape, tensor.strides));
    }
    let (mut count, mut last, mut in_order) = (1usize, 0usize, true);
    for (&dim, &stride) in tensor.shape.iter().zip(&tensor.strides).rev() {
        in_order &= dim == 1 || stride == count;
        last =
            dim.saturating_sub(1).checked_mul(stride).and_then(|step| step.checked_add(last)).ok_or_else(overflow)?;
        count = count.checked_mul(dim).ok_or_else(overflow)?;
    }
    let size = tensor.storage.dtype.size();
    let storage = storages.get(&*tensor.storage.key).ok_or("its storage is not in the archive")?;
    let stored = storage.len() / size;
    let spanned = if count == 0 { 0 } else { last.checked_add(1).ok_or_else(overflow)? };
    let end = tensor.offset.checked_add(spanned).ok_or_else(overflow)?;
    if end > stored || tensor.storage.len > stored {
        return Err(format!("it ends at element {end}, but its storage has {stored}"));
    }
    // A view that repeats elements may be of any size; no state dict has one.
    if count > spanned {
        return Err(format!("it shows {spanned} elements as {count} (strides {:?})", tensor.strides));
    }
    let range = storage.start + tensor.offset * size..storage.start + end * size;
    Ok((range, (!in_order && count > 0).then(|| tensor.strides.clone())))
}
