//! One tensor in a file, not read yet.

use std::{ops::Range, path::Path, sync::Arc};

use burn::tensor::{Bytes, DType, TensorData};

use crate::mapped::Mapped;

/// A tensor in a file: its place, its shape and its type.
#[derive(Clone)]
pub struct StoredTensor {
    /// The dimensions of the tensor.
    pub shape: Vec<usize>,
    /// The type of the tensor in the file.
    pub dtype: DType,
    /// The name of the tensor in the file.
    pub name: Arc<str>,
    pub(crate) file: Mapped,
    /// The bytes from the first element to the end of the last.
    pub(crate) range: Range<usize>,
    /// The number of elements from one index to the next, for each dimension; `None` if the elements lie in order.
    pub(crate) strides: Option<Vec<usize>>,
}

impl StoredTensor {
    /// The file that the tensor lies in.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The values in order: the file's own pages if they lie in order and are aligned, else a copy.
    pub fn data(&self) -> TensorData {
        match &self.strides {
            None => self.file.tensor(self.range.clone(), &self.shape, self.dtype),
            Some(strides) => {
                let size = self.dtype.size();
                let mut bytes = Vec::with_capacity(size * self.shape.iter().product::<usize>());
                gather(&self.file.bytes()[self.range.clone()], size, &self.shape, strides, &mut bytes);
                TensorData::from_bytes(Bytes::from_bytes_vec(bytes), self.shape.clone(), self.dtype)
            }
        }
    }
}

/// The counts of a tensor's numbers that are NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite {
    /// The count of NaN.
    pub nan: usize,
    /// The count of infinite numbers.
    pub infinite: usize,
}

impl StoredTensor {
    /// The counts of numbers that are not finite once they are kept as `dtype`; `None` if all are finite.
    pub fn not_finite(&self, dtype: DType) -> Option<NotFinite> {
        if !self.dtype.is_float() {
            return None;
        }
        let data = self.data();
        let data = if self.dtype == dtype { data } else { data.convert_dtype(dtype) };
        let (mut nan, mut infinite) = (0, 0);
        for value in data.iter::<f64>().filter(|value| !value.is_finite()) {
            if value.is_nan() { nan += 1 } else { infinite += 1 }
        }
        (nan + infinite > 0).then_some(NotFinite { nan, infinite })
    }
}

/// Appends the elements of `size` bytes that lie in `from` in `strides`; the last dimension varies fastest.
fn gather(from: &[u8], size: usize, shape: &[usize], strides: &[usize], to: &mut Vec<u8>) {
    let (Some((&len, shape)), Some((&stride, strides))) = (shape.split_first(), strides.split_first()) else {
        to.extend_from_slice(&from[..size]);
        return;
    };
    for i in 0..len {
        gather(&from[i * stride * size..], size, shape, strides, to);
    }
}
