//! One tensor in a file, not read yet.

use std::{ops::Range, path::Path, sync::Arc};

use burn::tensor::{Bytes, DType, TensorData};

use secateur_blocks::{BlockType, Blocks, RowOrder};

use crate::mapped::Mapped;

/// A tensor in a file: its place, its shape and its type.
#[derive(Clone)]
pub struct StoredTensor {
    /// The dimensions of the tensor.
    pub shape: Vec<usize>,
    /// The type of the tensor's values; f32 for values in blocks.
    pub dtype: DType,
    /// The layout of the tensor's blocks, if its values lie in blocks.
    pub blocks: Option<BlockType>,
    /// The order of the rows in the file, of a matrix.
    pub order: RowOrder,
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

    /// Gives the memory of the tensor's part of the file back to the system, which reads it again where it is needed.
    pub fn give_back(&self) {
        self.file.give_back(&self.range);
    }

    /// The tensor's blocks, if its values lie in blocks and it is a matrix: the file's own pages.
    pub fn blocks(&self) -> Option<Blocks> {
        let (Some(kind), [rows, columns]) = (self.blocks, &self.shape[..]) else { return None };
        Blocks::new(kind, [*rows, *columns], self.order, self.file.shared(self.range.clone()))
    }

    /// The values in order: the file's own pages if they lie in order and are aligned, else a copy.
    pub fn data(&self) -> TensorData {
        if let Some(kind) = self.blocks {
            return self.unpacked(kind);
        }
        if let RowOrder::Interleaved { .. } = self.order {
            let (rows, row) = (self.shape[0], self.range.len() / self.shape[0].max(1));
            let from = &self.file.bytes()[self.range.clone()];
            let bytes = (0..rows).flat_map(|i| &from[self.order.place(i) * row..][..row]).copied().collect();
            return TensorData::from_bytes(Bytes::from_bytes_vec(bytes), self.shape.clone(), self.dtype);
        }
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

impl StoredTensor {
    /// Some rows (indices of the first dimension) as a tensor of their own, in place; `None` where they are not there, or have another order in the file.
    pub fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let count = *self.shape.first()?;
        if rows.end > count || rows.start > rows.end || self.order != RowOrder::Plain {
            return None;
        }
        let range = match &self.strides {
            None => {
                let row = self.range.len() / count.max(1);
                self.range.start + rows.start * row..self.range.start + rows.end * row
            }
            Some(strides) => self.range.start + rows.start * strides[0] * self.dtype.size()..self.range.end,
        };
        let mut part = self.clone();
        part.shape[0] = rows.len();
        part.range = range;
        Some(part)
    }

    /// The numbers at one index of a dimension as a tensor without that dimension, in place; `None` where there is no such index, or values lie in blocks.
    pub fn at(&self, axis: usize, index: usize) -> Option<Self> {
        if self.blocks.is_some() || self.order != RowOrder::Plain || index >= *self.shape.get(axis)? {
            return None;
        }
        let in_order = || (0..self.shape.len()).map(|axis| self.shape[axis + 1..].iter().product()).collect();
        let mut strides: Vec<usize> = self.strides.clone().unwrap_or_else(in_order);
        let mut part = self.clone();
        part.shape.remove(axis);
        part.range.start += index * strides.remove(axis) * self.dtype.size();
        part.strides = Some(strides);
        Some(part)
    }
}

impl StoredTensor {
    /// The values of blocks of any shape, in f32.
    fn unpacked(&self, kind: BlockType) -> TensorData {
        let columns = self.shape.last().copied().unwrap_or(1).max(1);
        let rows = self.shape.iter().product::<usize>() / columns;
        let mut values = vec![0.0f32; rows * columns];
        if let Some(blocks) = Blocks::new(kind, [rows, columns], self.order, self.file.shared(self.range.clone())) {
            values.chunks_exact_mut(columns).enumerate().for_each(|(row, to)| blocks.unpack_row(row, to));
        }
        TensorData::new(values, self.shape.clone())
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
