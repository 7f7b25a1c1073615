//! The tensors of GGUF files: their names there, their paths in the networks, and their shapes.

use std::collections::BTreeMap;

use secateur_blocks::RowOrder;
use secateur_weights::{Gguf, StoredTensor, printable};

use super::GgufPart;
use crate::Error;

/// A tensor that a file must have.
pub(in crate::model) struct Expected {
    /// The name of the tensor in the file.
    pub(in crate::model) name: String,
    /// The path of the tensor in the networks.
    pub(in crate::model) path: String,
    /// The dimensions, the innermost one last.
    pub(in crate::model) shape: Vec<usize>,
    /// The order of the rows in the file.
    pub(in crate::model) order: RowOrder,
}

/// A tensor whose rows have the order that they have here.
pub(in crate::model) fn expected(name: impl Into<String>, path: impl Into<String>, shape: &[usize]) -> Expected {
    Expected { name: name.into(), path: path.into(), shape: shape.to_vec(), order: RowOrder::Plain }
}

/// Takes the tensors of a file by their names. Tensors whose names start with `unread` are passed over.
///
/// # Errors
/// When one is missing, of another shape, or has no place in the networks.
pub(in crate::model) fn take(
    file: &Gguf,
    expected: Vec<Expected>,
    unread: Option<&str>,
) -> Result<BTreeMap<String, StoredTensor>, Error> {
    let mut rest: BTreeMap<&str, &StoredTensor> =
        file.tensors.iter().map(|(name, tensor)| (&name[..], tensor)).collect();
    let mut found = BTreeMap::new();
    for Expected { name, path, shape, order } in &expected {
        let tensor = rest.remove(&name[..]).ok_or_else(|| missing_tensor(file, name))?;
        if tensor.shape != *shape {
            let reason =
                format!("the tensor `{name}` has the shape {:?}; {shape:?} is expected, by its settings", tensor.shape);
            return Err(Error::config(&file.path, reason));
        }
        let mut tensor = tensor.clone();
        tensor.order = *order;
        found.insert(path.clone(), tensor);
    }
    rest.retain(|name, _| unread.is_none_or(|start| !name.starts_with(start)));
    match rest.keys().next() {
        None => Ok(found),
        Some(name) => {
            let reason = format!(
                "the tensor `{}` has no place in the model, nor have {} others",
                printable(name),
                rest.len() - 1
            );
            Err(Error::config(&file.path, reason))
        }
    }
}

/// The tensors as parts of a file that is written.
pub(in crate::model) fn parts(expected: Vec<Expected>) -> Vec<GgufPart> {
    expected.into_iter().map(|Expected { name, path, shape, order }| GgufPart { name, path, shape, order }).collect()
}

/// The size of a dimension of a tensor.
///
/// # Errors
/// When the tensor is missing, or has fewer dimensions.
pub(in crate::model) fn columns(file: &Gguf, name: &str, dimension: usize) -> Result<usize, Error> {
    let tensor = file.tensors.get(name).ok_or_else(|| missing_tensor(file, name))?;
    tensor.shape.get(dimension).copied().ok_or_else(|| {
        let reason = format!("the tensor `{name}` has the shape {:?}, with too few dimensions", tensor.shape);
        Error::config(&file.path, reason)
    })
}

fn missing_tensor(file: &Gguf, name: &str) -> Error {
    Error::config(&file.path, format!("the tensor `{name}` is missing"))
}
