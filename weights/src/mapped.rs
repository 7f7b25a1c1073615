//! A file mapped into memory, shared by all tensors that lie in it.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use bytes::Bytes as Shared;
use memmap2::Mmap;

use crate::{WeightsError, error::io};

/// The bytes of one file; cloning shares them.
#[derive(Clone)]
pub(crate) struct Mapped {
    bytes: Shared,
    path: Arc<Path>,
}

impl Mapped {
    /// Maps `path`. The pages are read from disk when they are first touched.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        // Only a regular file is opened: a pipe that nobody writes to would be waited for, for ever.
        let meta = std::fs::metadata(path).map_err(io(path))?;
        if !meta.is_file() {
            return Err(WeightsError::Unsupported {
                path: path.to_owned(),
                reason: "it is no regular file".to_owned(),
            });
        }
        if meta.len() == 0 {
            return Err(WeightsError::Damaged { path: path.to_owned(), reason: "0 bytes long".to_owned() });
        }
        let file = File::open(path).map_err(io(path))?;
        // SAFETY: the mapping is read-only; as with every mapped file, nothing may rewrite the checkpoint while it
        // is in use.
        let map = unsafe { Mmap::map(&file) }.map_err(io(path))?;
        Ok(Self { bytes: Shared::from_owner(map), path: path.into() })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A part of the file, which shares its pages.
    pub(crate) fn shared(&self, range: Range<usize>) -> Shared {
        self.bytes.slice(range)
    }

    /// The path of the file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The tensor in `range`, without a copy unless its address in the file is not aligned.
    pub(crate) fn tensor(&self, range: Range<usize>, shape: &[usize], dtype: DType) -> TensorData {
        let slice = self.bytes.slice(range);
        let aligned = slice.as_ptr().align_offset(dtype.size()) == 0;
        let bytes = if aligned {
            Bytes::from_shared(slice, AllocationProperty::File)
        } else {
            Bytes::from_bytes_vec(slice.to_vec())
        };
        TensorData::from_bytes(bytes, shape.to_vec(), dtype)
    }
}
