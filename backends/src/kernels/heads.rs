//! Tensors `[batch, heads, tokens, head_dim]` where they lie: queries, keys and values come out of a product token by token,
//! and are read in place instead of being copied head by head.

use std::ops::Range;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use gemm::Parallelism;

/// The rows of one head; a row is contiguous.
#[derive(Clone, Copy)]
pub(super) struct Head {
    start: *mut f32,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

// SAFETY: a head is only handed to one thread at a time when it is written, see `Heads::head`.
unsafe impl Send for Head {}

/// All heads of a tensor.
pub(super) struct Heads {
    start: *mut f32,
    /// `[batch, heads, tokens, head_dim]`.
    pub(super) shape: [usize; 4],
    strides: [usize; 3],
}

// SAFETY: the pointer is only read through, or written through by threads that take different heads.
unsafe impl Sync for Heads {}

impl Heads {
    /// The heads of an f32 tensor that outlives the result and is only read; `None` if its rows are not contiguous.
    pub(super) fn of(tensor: &FlexTensor) -> Option<Self> {
        let (layout, strides) = (tensor.layout(), tensor.layout().strides());
        let shape: [usize; 4] = layout.shape()[..].try_into().ok()?;
        let stride = |axis: usize| usize::try_from(strides[axis]).ok();
        (tensor.dtype() == DType::F32 && strides[3] == 1).then_some(())?;
        let strides = [stride(0)?, stride(1)?, stride(2)?];
        let start = tensor.storage::<f32>()[layout.start_offset()..].as_ptr().cast_mut();
        Some(Self { start, shape, strides })
    }

    /// Heads in a new buffer, laid out token by token, as the product after attention wants them.
    pub(super) fn token_major(buffer: &mut [f32], shape: [usize; 4]) -> Self {
        assert_eq!(buffer.len(), shape.iter().product::<usize>());
        let [_, heads, tokens, head_dim] = shape;
        let strides = [tokens * heads * head_dim, head_dim, heads * head_dim];
        Self { start: buffer.as_mut_ptr(), shape, strides }
    }

    /// The key or value head that number `i` of the heads of `queries` reads: each is that of equally many of them, one after another.
    pub(super) fn shared_by(&self, queries: &Self, i: usize) -> Head {
        self.head(i / (queries.shape[1] / self.shape[1]))
    }

    /// Batch times heads.
    pub(super) fn count(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Head number `i` of all batches.
    pub(super) fn head(&self, i: usize) -> Head {
        let [_, heads, rows, columns] = self.shape;
        assert!(i < self.count());
        // SAFETY: within the tensor, by its shape and strides.
        let start = unsafe { self.start.add(i / heads * self.strides[0] + i % heads * self.strides[1]) };
        Head { start, rows, columns, stride: self.strides[2] }
    }
}

/// A buffer filled through [`Heads::token_major`] as a tensor of the same shape.
pub(super) fn tensor(buffer: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    let [_, heads, tokens, head_dim] = shape;
    let strides = [tokens * heads * head_dim, head_dim, heads * head_dim, 1].map(|stride| stride as isize);
    FlexTensor::new(Bytes::from_elems(buffer), Layout::new(Shape::from(shape), strides.to_vec(), 0), DType::F32)
}

impl Head {
    /// Rows `from..to`.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        assert!(from <= to && to <= self.rows);
        // SAFETY: rows of this head.
        Self { start: unsafe { self.start.add(from * self.stride) }, rows: to - from, ..self }
    }

    /// All rows to read, from the first one's beginning to the last one's end, with what lies between.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn numbers(&self) -> &[f32] {
        let last = self.rows.checked_sub(1).map_or(0, |last| last * self.stride + self.columns);
        // SAFETY: within the tensor, which nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start, last) }
    }

    /// A row to read.
    pub(super) fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.rows);
        // SAFETY: a row of this head, which nobody writes meanwhile.
        unsafe { std::slice::from_raw_parts(self.start.add(i * self.stride), self.columns) }
    }

    /// Where number `column` of row `row` is written, and how far apart rows are.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn place(&mut self, row: usize, column: usize) -> (*mut f32, usize) {
        assert!(row < self.rows && column < self.columns);
        // SAFETY: within this head.
        (unsafe { self.start.add(row * self.stride + column) }, self.stride)
    }

    /// A row to write.
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: a row of this head, which belongs to one thread.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.columns) }
    }
}

/// A matrix for [`product`]: a head, the transpose of one, or scores in a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    start: *mut f32,
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
}

impl From<Head> for Matrix {
    fn from(head: Head) -> Self {
        Self {
            start: head.start,
            rows: head.rows,
            columns: head.columns,
            row_stride: head.stride as isize,
            column_stride: 1,
        }
    }
}

impl Matrix {
    /// A row-major matrix in a slice that outlives it.
    pub(super) fn scores(slice: &mut [f32], columns: usize) -> Self {
        let rows = slice.len() / columns;
        Self { start: slice.as_mut_ptr(), rows, columns, row_stride: columns as isize, column_stride: 1 }
    }

    /// Some of the columns.
    pub(super) fn columns(self, columns: Range<usize>) -> Self {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        // SAFETY: columns of this matrix.
        let start = unsafe { self.start.offset(columns.start as isize * self.column_stride) };
        Self { start, columns: columns.len(), ..self }
    }

    pub(super) fn transposed(self) -> Self {
        let Self { start, rows, columns, row_stride, column_stride } = self;
        Self { start, rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride }
    }
}

/// `out = scale · left · right`, or `out + …` with `add`, on the calling thread.
pub(super) fn product(out: Matrix, add: bool, left: Matrix, right: Matrix, scale: f32) {
    assert_eq!((left.columns, out.rows, out.columns), (right.rows, left.rows, right.columns));
    // SAFETY: every matrix lies within its tensor or slice by construction, their sizes fit, and `out` is written by this
    // thread alone.
    unsafe {
        gemm::gemm(
            out.rows,
            out.columns,
            left.columns,
            out.start,
            out.column_stride,
            out.row_stride,
            add,
            left.start,
            left.column_stride,
            left.row_stride,
            right.start,
            right.column_stride,
            right.row_stride,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A tensor `[batch, heads, tokens, head_dim]` for tests.
#[cfg(test)]
pub(super) fn random(shape: [usize; 4]) -> burn::tensor::Tensor<crate::Flex, 4> {
    burn::tensor::Tensor::random(shape, burn::tensor::Distribution::Uniform(-2.0, 2.0), &Default::default())
}
