//! A file mapped into memory, shared by all tensors that lie in it.

use std::{fs::File, ops::Range, path::Path};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use bytes::Bytes as Shared;
use memmap2::Mmap;

use crate::{WeightsError, error::io};

/// The bytes of one file; cloning shares them.
#[derive(Clone)]
pub(crate) struct Mapped(Shared);

impl Mapped {
    /// Maps `path`. The pages are read from disk when they are first touched.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let file = File::open(path).map_err(io(path))?;
        let len = file.metadata().map_err(io(path))?.len();
        if len == 0 {
            return Err(WeightsError::Damaged { path: path.to_owned(), reason: "0 bytes long".to_owned() });
        }
        // SAFETY: the mapping is read-only; as with every mapped file, nothing may rewrite the checkpoint while it
        // is in use.
        let map = unsafe { Mmap::map(&file) }.map_err(io(path))?;
        Ok(Self(Shared::from_owner(map)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The tensor in `range`, without a copy unless the file has it at an odd address.
    pub(crate) fn tensor(&self, range: Range<usize>, shape: &[usize], dtype: DType) -> TensorData {
        let slice = self.0.slice(range);
        let aligned = slice.as_ptr().align_offset(dtype.size()) == 0;
        let bytes = if aligned {
            Bytes::from_shared(slice, AllocationProperty::File)
        } else {
            Bytes::from_bytes_vec(slice.to_vec())
        };
        TensorData::from_bytes(bytes, shape.to_vec(), dtype)
    }
}
