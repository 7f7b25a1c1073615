//! A matrix in blocks.

use bytes::Bytes;

use crate::{BlockType, Format, GROUP, Group, with_format};

/// The order of a matrix's rows in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// One after another.
    #[default]
    Plain,
    /// In heads of `width` rows, of which row `i` of the first half lies before row `i` of the second: the order of queries
    /// and keys for positions that rotate neighbours.
    Interleaved {
        /// The number of rows of a head, which is even.
        width: usize,
    },
}

impl RowOrder {
    /// The place in the file of row number `row`.
    #[inline(always)]
    pub fn place(self, row: usize) -> usize {
        match self {
            Self::Plain => row,
            Self::Interleaved { width } => {
                let (head, at) = (row / width, row % width);
                head * width + 2 * (at % (width / 2)) + at / (width / 2)
            }
        }
    }
}

/// A matrix in blocks along its rows, `[rows, columns]`; cloning shares the bytes.
#[derive(Clone, Debug)]
pub struct Blocks {
    kind: BlockType,
    rows: usize,
    columns: usize,
    order: RowOrder,
    row_bytes: usize,
    bytes: Bytes,
}

impl Blocks {
    /// A matrix of `bytes`, row after row; `None` if they are not as many as the shape has, or a row does not fill whole
    /// blocks.
    pub fn new(kind: BlockType, [rows, columns]: [usize; 2], order: RowOrder, bytes: Bytes) -> Option<Self> {
        let row_bytes = kind.row_bytes(columns)?;
        let is_whole = match order {
            RowOrder::Plain => true,
            RowOrder::Interleaved { width } => width > 0 && width.is_multiple_of(2) && rows.is_multiple_of(width),
        };
        (is_whole && rows.checked_mul(row_bytes)? == bytes.len()).then_some(Self {
            kind,
            rows,
            columns,
            order,
            row_bytes,
            bytes,
        })
    }

    /// The layout of the blocks.
    pub fn kind(&self) -> BlockType {
        self.kind
    }

    /// The numbers of rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// The number of bytes of all blocks.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The blocks of a row.
    ///
    /// # Panics
    /// When there is no such row.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[u8] {
        &self.bytes[self.order.place(row) * self.row_bytes..][..self.row_bytes]
    }

    /// Writes the values of a row to `to`, ggml's to the last bit.
    ///
    /// # Panics
    /// When there is no such row, or `to` is not as long as a row.
    pub fn unpack_row(&self, row: usize, to: &mut [f32]) {
        assert_eq!(to.len(), self.columns, "a row of {} values", self.columns);
        with_format!(self.kind, F => unpack::<F>(self.row(row), to));
    }
}

fn unpack<F: Format>(row: &[u8], to: &mut [f32]) {
    let mut group = Group::ZERO;
    for (bytes, to) in row.chunks(Group::bytes::<F>()).zip(to.chunks_mut(GROUP)) {
        group.unpack::<F>(bytes);
        group.values::<F>(to);
    }
}
