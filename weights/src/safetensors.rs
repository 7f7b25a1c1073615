//! Safetensors files: a JSON header, then the tensors as they lie in memory.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{BoolStore, DType};
use safetensors::{Dtype, SafeTensorError, SafeTensors, tensor::Metadata};

use secateur_blocks::RowOrder;

use crate::{StoredTensor, WeightsError, mapped::Mapped};

/// Every tensor of the file.
pub(crate) fn list(path: &Path, file: &Mapped) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    let damaged = |error| WeightsError::Damaged { path: path.to_owned(), reason: in_words(&error) };
    // This checks that the header and the file's length agree: a truncated file is refused here.
    let (header, metadata): (usize, Metadata) = SafeTensors::read_metadata(file.bytes()).map_err(damaged)?;
    let start = size_of::<u64>() + header;
    metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let dtype = dtype(info.dtype).ok_or_else(|| WeightsError::Unsupported {
                path: path.to_owned(),
                reason: format!("tensor `{name}` has type {:?}, which is not read{}", info.dtype, hint(info.dtype)),
            })?;
            let (from, to) = info.data_offsets;
            let tensor = StoredTensor {
                shape: info.shape.clone(),
                dtype,
                blocks: None,
                order: RowOrder::Plain,
                name: name.as_str().into(),
                file: file.clone(),
                range: start + from..start + to,
                strides: None,
            };
            Ok((name, tensor))
        })
        .collect()
}

/// The error of a file in plain words.
fn in_words(error: &SafeTensorError) -> String {
    match error {
        SafeTensorError::HeaderTooSmall => "it is too short for a safetensors file",
        SafeTensorError::HeaderTooLarge | SafeTensorError::InvalidHeaderLength => {
            "its first 8 bytes are no length of a header, so it is no safetensors file, or cut short"
        }
        SafeTensorError::MetadataIncompleteBuffer => "its header lists other bytes than the file has",
        SafeTensorError::TensorInvalidInfo | SafeTensorError::InvalidOffset(_) => {
            "a tensor's place in it does not fit the tensor's shape and type"
        }
        SafeTensorError::ValidationOverflow => "a tensor's shape overflows",
        _ => "its header cannot be read",
    }
    .to_owned()
}

/// A hint on a checkpoint with a tensor type that is not read.
fn hint(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::U16 | Dtype::U32 | Dtype::U64 => "",
        _ => ": the weights are quantised; give the checkpoint that they were made from",
    }
}

fn dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}
