//! Tensors `[batch, heads, tokens, head_dim]` that are read in place: queries, keys and values come out of a product
//! token by token, and need not be copied head by head.

use std::{marker::PhantomData, ops::Range};

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use gemm::Parallelism;
use half::bf16;

/// A type of numbers that heads are stored in.
pub(super) trait Number: Copy + Send + Sync + 'static {
    const DTYPE: DType;

    /// The numbers of a tensor of this type.
    fn storage(tensor: &FlexTensor) -> &[Self];
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;

    fn storage(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }
}

impl Number for bf16 {
    const DTYPE: DType = DType::BF16;

    fn storage(tensor: &FlexTensor) -> &[Self] {
        tensor.storage()
    }
}

/// All heads of a tensor, for reading.
pub(super) struct Heads<'a, T = f32> {
    /// The numbers from the first of the first head on.
    numbers: &'a [T],
    /// The shape, `[batch, heads, tokens, head_dim]`.
    pub(super) shape: [usize; 4],
    strides: [usize; 3],
}

/// The rows of one head, for reading; a row is contiguous.
#[derive(Clone, Copy)]
pub(super) struct Head<'a, T = f32> {
    /// The numbers from the start of the first row to the end of the last, with the numbers between rows.
    numbers: &'a [T],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
}

impl<'a, T: Number> Heads<'a, T> {
    /// The heads of a tensor; `None` if it is of another type, or its rows are not contiguous.
    pub(super) fn of(tensor: &'a FlexTensor) -> Option<Self> {
        let (layout, strides) = (tensor.layout(), tensor.layout().strides());
        let shape: [usize; 4] = layout.shape()[..].try_into().ok()?;
        let stride = |axis: usize| usize::try_from(strides[axis]).ok();
        (tensor.dtype() == T::DTYPE && strides[3] == 1).then_some(())?;
        let strides = [stride(0)?, stride(1)?, stride(2)?];
        Some(Self { numbers: &T::storage(tensor)[layout.start_offset()..], shape, strides })
    }

    /// The key or value head that head number `i` of `queries` reads: equally many query heads, one after another, share each.
    pub(super) fn shared_by(&self, queries: &Heads, i: usize) -> Head<'a, T> {
        self.head(i / (queries.shape[1] / self.shape[1]))
    }

    /// The number of heads in all batches.
    pub(super) fn count(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// Head number `i` of all batches.
    pub(super) fn head(&self, i: usize) -> Head<'a, T> {
        let [_, heads, rows, columns] = self.shape;
        // A head without rows may start after the last number.
        let start = if rows == 0 { 0 } else { i / heads * self.strides[0] + i % heads * self.strides[1] };
        let stride = self.strides[2];
        Head { numbers: &self.numbers[start..][..span(rows, columns, stride)], rows, columns, stride }
    }
}

impl<'a, T> Head<'a, T> {
    /// The rows `from..to` of the head.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        assert!(from <= to && to <= self.rows);
        let rows = to - from;
        // An empty part at the end of the head would start after its last number.
        let start = if rows == 0 { 0 } else { from * self.stride };
        Self { numbers: &self.numbers[start..][..span(rows, self.columns, self.stride)], rows, ..self }
    }

    /// All numbers from the start of the first row to the end of the last, with the numbers between rows.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn numbers(&self) -> &'a [T] {
        self.numbers
    }

    /// A row.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &'a [T] {
        &self.numbers[i * self.stride..][..self.columns]
    }
}

/// The distance from the start of the first of `rows` rows to the end of the last.
fn span(rows: usize, columns: usize, stride: usize) -> usize {
    rows.checked_sub(1).map_or(0, |last| last * stride + columns)
}

/// The heads of a new buffer, laid out token by token, as the product after attention reads them. Threads write them, each its own head.
pub(super) struct NewHeads<'a> {
    start: *mut f32,
    /// The shape, `[batch, heads, tokens, head_dim]`.
    shape: [usize; 4],
    buffer: PhantomData<&'a mut [f32]>,
}

// SAFETY: a thread writes only to heads that it has asked for, and by `NewHeads::head` nobody else has those.
unsafe impl Sync for NewHeads<'_> {}

/// The rows of one head of a new buffer, for writing.
pub(super) struct NewHead<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    buffer: PhantomData<&'a mut [f32]>,
}

impl<'a> NewHeads<'a> {
    /// The heads of a buffer.
    pub(super) fn of(buffer: &'a mut [f32], shape: [usize; 4]) -> Self {
        assert_eq!(buffer.len(), shape.iter().product::<usize>());
        Self { start: buffer.as_mut_ptr(), shape, buffer: PhantomData }
    }

    /// Head number `i` of all batches.
    ///
    /// # Safety
    /// Nobody may have the head of that number at the same time.
    pub(super) unsafe fn head(&self, i: usize) -> NewHead<'a> {
        let [batches, heads, rows, columns] = self.shape;
        assert!(i < batches * heads);
        let stride = heads * columns;
        let offset = if rows == 0 { 0 } else { i / heads * rows * stride + i % heads * columns };
        // SAFETY: within the buffer, by its shape.
        let start = unsafe { self.start.add(offset) };
        NewHead { start, rows, columns, stride, buffer: PhantomData }
    }
}

impl NewHead<'_> {
    /// The rows `from..to` of the head.
    pub(super) fn part(&mut self, from: usize, to: usize) -> NewHead<'_> {
        assert!(from <= to && to <= self.rows);
        let offset = if from == to { 0 } else { from * self.stride };
        // SAFETY: rows of this head.
        let start = unsafe { self.start.add(offset) };
        NewHead { start, rows: to - from, columns: self.columns, stride: self.stride, buffer: PhantomData }
    }

    /// The address of number `column` of row `row`, and the distance between rows.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    pub(super) fn place(&mut self, row: usize, column: usize) -> (*mut f32, usize) {
        assert!(row < self.rows && column < self.columns);
        // SAFETY: within this head.
        (unsafe { self.start.add(row * self.stride + column) }, self.stride)
    }

    /// A row.
    #[inline(always)]
    pub(super) fn row_mut(&mut self, i: usize) -> &mut [f32] {
        assert!(i < self.rows);
        // SAFETY: a row of this head, which belongs to one thread.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(i * self.stride), self.columns) }
    }
}

/// Turns a buffer that was filled through [`NewHeads`] into a tensor of that shape.
pub(super) fn tensor(buffer: Vec<f32>, shape: [usize; 4]) -> FlexTensor {
    let [_, heads, tokens, head_dim] = shape;
    let strides = [tokens * heads * head_dim, head_dim, heads * head_dim, 1].map(|stride| stride as isize);
    FlexTensor::new(Bytes::from_elems(buffer), Layout::new(Shape::from(shape), strides.to_vec(), 0), DType::F32)
}

/// A factor of [`product`]: a head, the transpose of one, or scores in a slice.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    start: *const f32,
    sides: Sides,
    numbers: PhantomData<&'a [f32]>,
}

/// The result of [`product`]: a head, or scores in a slice.
pub(super) struct MatrixMut<'a> {
    start: *mut f32,
    sides: Sides,
    numbers: PhantomData<&'a mut [f32]>,
}

/// The sizes of a matrix, and its strides.
#[derive(Clone, Copy)]
struct Sides {
    rows: usize,
    columns: usize,
    row_stride: isize,
    column_stride: isize,
}

impl Sides {
    fn row_major(rows: usize, columns: usize, stride: usize) -> Self {
        Self { rows, columns, row_stride: stride as isize, column_stride: 1 }
    }

    /// The offset of the first of `columns`, and the sides of these columns alone.
    fn columns(self, columns: &Range<usize>) -> (isize, Self) {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        (columns.start as isize * self.column_stride, Self { columns: columns.len(), ..self })
    }
}

impl<'a> From<Head<'a>> for Matrix<'a> {
    fn from(head: Head<'a>) -> Self {
        let sides = Sides::row_major(head.rows, head.columns, head.stride);
        Self { start: head.numbers.as_ptr(), sides, numbers: PhantomData }
    }
}

impl<'a> Matrix<'a> {
    /// A row-major matrix in a slice.
    pub(super) fn scores(slice: &'a [f32], columns: usize) -> Self {
        let sides = Sides::row_major(slice.len() / columns, columns, columns);
        Self { start: slice.as_ptr(), sides, numbers: PhantomData }
    }

    /// Some columns of the matrix.
    pub(super) fn columns(self, columns: &Range<usize>) -> Self {
        let (offset, sides) = self.sides.columns(columns);
        // SAFETY: columns of this matrix.
        Self { start: unsafe { self.start.offset(offset) }, sides, ..self }
    }

    pub(super) fn transposed(self) -> Self {
        let Sides { rows, columns, row_stride, column_stride } = self.sides;
        let sides = Sides { rows: columns, columns: rows, row_stride: column_stride, column_stride: row_stride };
        Self { sides, ..self }
    }
}

impl<'a> From<NewHead<'a>> for MatrixMut<'a> {
    fn from(head: NewHead<'a>) -> Self {
        let sides = Sides::row_major(head.rows, head.columns, head.stride);
        Self { start: head.start, sides, numbers: PhantomData }
    }
}

impl<'a> MatrixMut<'a> {
    /// A row-major matrix in a slice.
    pub(super) fn scores(slice: &'a mut [f32], columns: usize) -> Self {
        let sides = Sides::row_major(slice.len() / columns, columns, columns);
        Self { start: slice.as_mut_ptr(), sides, numbers: PhantomData }
    }

    /// Some columns of the matrix.
    pub(super) fn columns(self, columns: &Range<usize>) -> Self {
        let (offset, sides) = self.sides.columns(columns);
        // SAFETY: columns of this matrix.
        Self { start: unsafe { self.start.offset(offset) }, sides, ..self }
    }
}

/// Computes `out = scale · left · right`, or `out + …` with `add`, on the calling thread.
pub(super) fn product(out: MatrixMut, add: bool, left: Matrix, right: Matrix, scale: f32) {
    let (of_out, of_left, of_right) = (out.sides, left.sides, right.sides);
    assert_eq!((of_left.columns, of_out.rows, of_out.columns), (of_right.rows, of_left.rows, of_right.columns));
    // SAFETY: every matrix lies within its tensor or slice by construction, and their sizes fit.
    unsafe {
        gemm::gemm(
            of_out.rows,
            of_out.columns,
            of_left.columns,
            out.start,
            of_out.column_stride,
            of_out.row_stride,
            add,
            left.start,
            of_left.column_stride,
            of_left.row_stride,
            right.start,
            of_right.column_stride,
            of_right.row_stride,
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// A random tensor `[batch, heads, tokens, head_dim]` for tests.
#[cfg(test)]
pub(super) fn random(shape: [usize; 4]) -> burn::tensor::Tensor<crate::Flex, 4> {
    burn::tensor::Tensor::random(shape, burn::tensor::Distribution::Uniform(-2.0, 2.0), &Default::default())
}
