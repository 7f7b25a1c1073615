//! `x · Wᵀ` for f32 `x` `[rows, in]` and `W` `[out, in]` of 16 or 32 bits, read in the layout of the file.
//!
//! Few rows (decoding) take one dot product for each output, with the weight widened in registers, so that the time is
//! that of reading the weight once. More rows take the matrix unit, where the processor has one (`amx::exact`), or
//! [`super::panels`] with AVX-512 or AVX2. Elsewhere the weight is widened into a buffer, a block of outputs at a time,
//! and then multiplied in f32. All sums are in f32, and the weight itself is exact.

use std::array;

use burn::tensor::{Bytes, DType, Shape};
use burn_flex::FlexTensor;
use burn_flex::Layout;
use half::{bf16, f16};
use rayon::prelude::*;

use super::{
    columns::Columns,
    rows::{Floats, Rows},
    select::{Exact, LINEAR, LINEAR_BF16, there},
    turns::in_turn,
    widen::Weight,
};

/// The largest number of rows of `x` that are multiplied by dot products.
const FEW_ROWS: usize = 4;
/// The largest number of rows of `x` that are multiplied by dot products where there is no matrix unit.
const SOME_ROWS: usize = 12;
/// The numbers of rows of `x` ([`PAIR`]) and of the weight ([`GROUP`]) whose dot products are computed side by side.
const PAIR: usize = 2;
const GROUP: usize = 4;
/// The number of outputs whose dot products a thread computes at a time.
const BLOCK: usize = 128;
/// The number of outputs whose weights are widened at a time for many rows.
const WIDE: usize = 2048;

/// The product `x · weightᵀ`. Both tensors are contiguous from offset 0, and `weight` is f16, bf16 or f32.
pub(crate) fn product(x: &FlexTensor, weight: &FlexTensor) -> FlexTensor {
    let (x_shape, w_shape) = (x.layout().shape(), weight.layout().shape());
    let (rows, inner, outputs) = (x_shape[0], x_shape[1], w_shape[0]);
    assert_eq!(inner, w_shape[1], "linear: x is [{rows}, {inner}], the weight {w_shape:?}");
    let (x, sizes) = (&x.storage::<f32>()[..rows * inner], [rows, inner, outputs]);
    let out = match weight.dtype() {
        DType::F16 => dispatch(x, &weight.storage::<f16>()[..outputs * inner], sizes),
        DType::BF16 => dispatch(x, &weight.storage::<bf16>()[..outputs * inner], sizes),
        DType::F32 => dispatch(x, &weight.storage::<f32>()[..outputs * inner], sizes),
        other => unreachable!("the product was given {other:?} weights"),
    };
    FlexTensor::new(Bytes::from_elems(out), Layout::contiguous(Shape::from([rows, outputs])), DType::F32)
}

fn dispatch<T: Weight>(x: &[f32], weight: &[T], [rows, inner, outputs]: [usize; 3]) -> Vec<f32> {
    exact_rows(x, &Floats { weight, inner }, [rows, inner, outputs])
}

/// The product of exact numbers, `[rows, outputs]`, for sizes `[rows, inputs, outputs]`.
pub(super) fn exact_rows<T: Weight>(x: &[f32], weight: &dyn Rows<T>, sizes: [usize; 3]) -> Vec<f32> {
    let [rows, ..] = sizes;
    if rows <= FEW_ROWS {
        return by_dots(x, weight, sizes);
    }
    let kernels = there(LINEAR).filter(|kernel| kernel.run == Exact::MatrixUnit || rows > SOME_ROWS);
    if let Some(product) = kernels.filter_map(|kernel| exact(kernel.run, x, weight, sizes)).next() {
        return product;
    }
    if rows <= SOME_ROWS { by_dots(x, weight, sizes) } else { by_blocks(x, weight, sizes) }
}

/// A product by a kernel of the table; `None` for sizes that it is not made for.
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables))]
fn exact<T: Weight>(kernel: Exact, x: &[f32], weight: &dyn Rows<T>, sizes: [usize; 3]) -> Option<Vec<f32>> {
    match kernel {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Exact::MatrixUnit => super::amx::exact::product(x, weight, sizes),
        #[cfg(target_arch = "x86_64")]
        Exact::Tiles => super::panels::product(x, weight, sizes),
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        _ => None,
    }
}

/// The product by dot products. Every row of the weight is read once, for all rows of `x`.
fn by_dots<T: Weight>(x: &[f32], weight: &dyn Rows<T>, [rows, inner, outputs]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0f32; rows * outputs];
    let columns = Columns(out.as_mut_ptr());
    in_turn(outputs.div_ceil(BLOCK), |buffers: &mut Buffers<T>, block| {
        for first in (block * BLOCK..outputs.min((block + 1) * BLOCK)).step_by(GROUP) {
            let count = GROUP.min(outputs - first);
            let mut buffers = buffers.0.iter_mut();
            let group: [&[T]; GROUP] = array::from_fn(|i| match buffers.next() {
                Some(buffer) if i < count => weight.part(first + i, 0..inner, buffer),
                _ => &[],
            });
            for (pair, x) in x.chunks(PAIR * inner).enumerate() {
                for (row, sums) in (PAIR * pair..rows).zip(dots(x, &group[..count], inner)) {
                    for (output, sum) in (first..outputs).zip(sums) {
                        // SAFETY: inside of the matrix, in a column of this block.
                        unsafe { *columns.at(row * outputs + output) = sum };
                    }
                }
            }
        }
    });
    out
}

/// The buffers of a thread: rows of the weight that are not read in place.
struct Buffers<T>([Vec<T>; GROUP]);

impl<T> Default for Buffers<T> {
    fn default() -> Self {
        Self(array::from_fn(|_| Vec::new()))
    }
}

/// The dot products of up to [`PAIR`] rows of `x` with up to [`GROUP`] rows of the weight, 0 where there are fewer.
fn dots<T: Weight>(x: &[f32], weight: &[&[T]], inner: usize) -> [[f32; GROUP]; PAIR] {
    let group = || array::from_fn(|i| weight[i]);
    match (x.len() / inner, weight.len()) {
        (PAIR, GROUP) => T::dots(array::from_fn(|i| &x[i * inner..][..inner]), group()),
        (1, GROUP) => [T::dots([x], group())[0], [0.0; GROUP]],
        _ => {
            let mut found = [[0.0; GROUP]; PAIR];
            for (x, found) in x.chunks(inner).zip(&mut found) {
                weight.iter().zip(found).for_each(|(weight, found)| [[*found]] = T::dots([x], [weight]));
            }
            found
        }
    }
}

/// [`product`] with `x` rounded to bf16, as the weight is, plus `bias` in every row; `None` where the processor has no instruction for it.
pub(crate) fn rounded(x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>) -> Option<FlexTensor> {
    let (x_shape, w_shape) = (x.layout().shape(), weight.layout().shape());
    let (rows, inner, outputs) = (x_shape[0], x_shape[1], w_shape[0]);
    assert_eq!(inner, w_shape[1], "linear: x is [{rows}, {inner}], the weight {w_shape:?}");
    (weight.is_contiguous() && weight.layout().start_offset() == 0).then_some(())?;
    let x = &x.storage::<f32>()[..rows * inner];
    let weight = &weight.storage::<bf16>()[..outputs * inner];
    let bias = match bias {
        None => None,
        Some(bias) if bias.dtype() == DType::F32 && bias.is_contiguous() && bias.layout().start_offset() == 0 => {
            Some(&bias.storage::<f32>()[..outputs])
        }
        Some(_) => return None,
    };
    let out = rounded_rows(x, &Floats { weight, inner }, [rows, inner, outputs], bias)?;
    Some(FlexTensor::new(Bytes::from_elems(out), Layout::contiguous(Shape::from([rows, outputs])), DType::F32))
}

/// The product of numbers rounded to bf16, `[rows, outputs]`, plus `bias` in every row, for sizes `[rows, inputs, outputs]`; `None` where the processor has no instruction for it.
pub(super) fn rounded_rows(
    x: &[f32],
    weight: &dyn Rows<bf16>,
    sizes: [usize; 3],
    bias: Option<&[f32]>,
) -> Option<Vec<f32>> {
    there(LINEAR_BF16).find_map(|kernel| (kernel.run)(x, weight, sizes, bias))
}

fn by_blocks<T: Weight>(x: &[f32], weight: &dyn Rows<T>, [rows, inner, outputs]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0.0f32; rows * outputs];
    let mut wide = vec![0.0f32; WIDE.min(outputs) * inner];
    for block in 0..outputs.div_ceil(WIDE) {
        let width = WIDE.min(outputs - block * WIDE);
        wide.par_chunks_mut(inner.max(1)).take(width).enumerate().for_each_init(Vec::new, |buffer, (row, to)| {
            T::widen(weight.part(block * WIDE + row, 0..inner, buffer), to);
        });
        // SAFETY: the pointers cover `rows` rows of `x`, `width` rows of the widened block, and `width` columns of
        // `out`; strides are those of row-major matrices.
        unsafe {
            gemm::gemm(
                rows,
                width,
                inner,
                out.as_mut_ptr().add(block * WIDE),
                1,
                outputs as isize,
                false,
                x.as_ptr(),
                1,
                inner as isize,
                wide.as_ptr(),
                inner as isize,
                1,
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(0),
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Flex, VlmBackend,
        ops::reference_linear,
        testing::{require, worst},
    };
    use burn::tensor::{Distribution, Tensor, TensorData};

    #[test]
    fn rounding_x_is_all_that_the_fast_product_may_change() {
        let device = Default::default();
        // The last size is one that no way with these instructions takes.
        for (rows, inner, outputs, is_taken) in
            [(1, 4096, 64, true), (5, 320, 70, true), (66, 96, 31, true), (3, 70, 9, false)]
        {
            let random = |shape| Tensor::<Flex, 2>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
            let (x, w) = (random([rows, inner]), random([outputs, inner]).cast(DType::BF16));
            // Burn's own cast rounds some ties the other way.
            let values: Vec<f32> = x.to_data().into_vec().unwrap();
            let values: Vec<f32> = values.iter().map(|&value| bf16::from_f32(value).to_f32()).collect();
            let rounded = Tensor::<Flex, 2>::from_data(TensorData::new(values, [rows, inner]), &device);
            let fast = Flex::linear_rows_bf16(x.clone().into_primitive().tensor(), w.clone().into_primitive().tensor());
            let product = |x: Tensor<Flex, 2>| {
                reference_linear::<Flex>(x.into_primitive().tensor(), w.clone().into_primitive().tensor())
            };
            // Without the instruction nothing is rounded.
            let slow = product(if is_taken && require("avx512bf16") { rounded } else { x });
            let found = worst(fast.storage(), slow.storage());
            assert!(found < 1e-4, "{rows}x{inner}x{outputs}: worst difference {found}");
        }
    }

    #[test]
    fn equals_the_reference_within_f32_rounding() {
        let device = Default::default();
        for (rows, inner, outputs) in [
            (1, 1, 1),
            (1, 160, 1280),
            (3, 70, 129),
            (5, 64, 300),
            (12, 96, 50),
            (77, 333, 257),
            (90, 1024, 300),
            (33, 1024, 256),
            (300, 960, 300),
        ] {
            for dtype in [DType::F16, DType::BF16, DType::F32] {
                let x = Tensor::<Flex, 2>::random([rows, inner], Distribution::Uniform(-1.0, 1.0), &device);
                let w = Tensor::<Flex, 2>::random([outputs, inner], Distribution::Uniform(-1.0, 1.0), &device);
                let (x, w) = (x.into_primitive().tensor(), w.cast(dtype).into_primitive().tensor());
                let fast = product(&x, &w);
                let slow = reference_linear::<Flex>(x.clone(), w.clone());
                let off = worst(fast.storage(), slow.storage());
                assert!(off < 1e-4, "{rows}x{inner}x{outputs} {dtype:?}: worst difference {off}");
                let (sizes, x, slow) = ([rows, inner, outputs], x.storage(), slow.storage());
                match dtype {
                    DType::F16 => every_way(x, w.storage::<f16>(), sizes, slow),
                    DType::BF16 => every_way(x, w.storage::<bf16>(), sizes, slow),
                    _ => every_way(x, w.storage::<f32>(), sizes, slow),
                }
            }
        }
    }

    /// Checks every way that there is for these sizes, not only the fastest.
    fn every_way<T: Weight>(x: &[f32], w: &[T], sizes: [usize; 3], slow: &[f32]) {
        let [rows, inner, outputs] = sizes;
        let w = &Floats { weight: w, inner };
        let mut ways = vec![("dots", by_dots(x, w, sizes)), ("blocks", by_blocks(x, w, sizes))];
        #[cfg(target_arch = "x86_64")]
        if require("avx2") {
            ways.push(("tiles", super::super::panels::product(x, w, sizes).unwrap()));
        }
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        if inner % 32 == 0 && outputs % 32 == 0 && inner * outputs >= 1 << 18 && require("amx") {
            ways.push(("matrix unit", super::super::amx::exact::product(x, w, sizes).unwrap()));
        }
        for (way, found) in ways {
            let off = worst(&found, slow);
            assert!(off < 1e-4, "{way}, {rows}x{inner}x{outputs}: worst difference {off}");
        }
    }
}
