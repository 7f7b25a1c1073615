//! A file mapped into memory, shared by all tensors that lie in it.

use std::{fs::File, ops::Range, path::Path, sync::Arc};

use burn::tensor::{AllocationProperty, Bytes, DType, TensorData};
use bytes::Bytes as Shared;
use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::{WeightsError, error::io};

/// The pages of a mapping, as bytes.
struct Pages(Arc<Mmap>);

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The bytes of one file; cloning shares them.
#[derive(Clone)]
pub(crate) struct Mapped {
    bytes: Shared,
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix takes pages back"))]
    map: Arc<Mmap>,
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
        let map = Arc::new(map);
        Ok(Self { bytes: Shared::from_owner(Pages(map.clone())), map, path: path.into() })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives the memory of a part of the file back to the system, which reads the part again where it is needed.
    pub(crate) fn give_back(&self, range: &Range<usize>) {
        // SAFETY: the mapping is read-only, and none of its pages was changed: they are read from the file again. A system that keeps
        // them makes no difference.
        #[cfg(unix)]
        let _ = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(not(unix))]
        let _ = range;
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
