//! The best rates of a device, with which the times of a bench are compared.

use std::{cell::Cell, time::Instant};

use anyhow::Result;
use burn::tensor::{DType, Distribution, Tensor, TensorPrimitive};
use secateur_backends::VlmBackend;

/// The side of the largest product that is tried.
const LARGEST: usize = 8192;
/// A product that takes this long, in seconds, is large enough.
const LONG: f64 = 5e-3;
/// The number of measurements, of which the best counts.
const TRIALS: usize = 5;
/// The count of numbers that are copied: more than caches hold.
const COPIED: usize = 128 << 20;

/// The best rates, measured on the device itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceilings {
    /// The weights' type in the product that was measured, for people.
    pub(super) weights: &'static str,
    /// Rows, inputs and outputs of the product that was measured.
    pub(super) side: usize,
    /// Operations a second of that product, 2 a multiply-add.
    pub(super) product: f64,
    /// Bytes a second of a copy, read and written bytes added up.
    pub(super) copy: f64,
}

/// Measures a large product of numbers in `dtype` by weights in `weights`, and a large copy of numbers in `dtype`. The
/// product may round its inputs where layers may (`rounded`). No tensor has more than `largest` bytes.
pub(super) fn measure<B: VlmBackend>(
    [dtype, weights]: [DType; 2],
    rounded: bool,
    largest: u64,
    device: &B::Device,
) -> Result<Ceilings> {
    let holds = |numbers: usize| (numbers * size_of::<f32>()) as u64 <= largest;
    let mut side = 1024;
    let mut seconds = product::<B>(side, [dtype, weights], rounded, device)?;
    while seconds < LONG && side < LARGEST && holds(4 * side * side) {
        side *= 2;
        seconds = product::<B>(side, [dtype, weights], rounded, device)?;
    }
    // The copy is in place, so that no memory is allocated meanwhile.
    let copied = COPIED.min(usize::try_from(largest / 4).unwrap_or(COPIED));
    let x = Cell::new(Some(Tensor::<B, 1>::random([copied], Distribution::Default, device).cast(dtype)));
    let copy = best::<B>(device, || x.set(x.take().map(|x| x + 1.0)))?;
    let bytes = (2 * copied * dtype.size()) as f64;
    let weights = match weights {
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        _ => "f32",
    };
    Ok(Ceilings { weights, side, product: 2.0 * (side as f64).powi(3) / seconds, copy: bytes / copy })
}

/// The seconds of a product of two square matrices, as layers multiply.
fn product<B: VlmBackend>(side: usize, dtypes: [DType; 2], rounded: bool, device: &B::Device) -> Result<f64> {
    // The numbers are random: zeros need less power.
    let square = |dtype: DType| {
        let square = Tensor::<B, 2>::random([side, side], Distribution::Uniform(-1.0, 1.0), device).cast(dtype);
        square.into_primitive().tensor()
    };
    let [x, weight] = dtypes.map(square);
    let apply = if rounded { B::linear_rows_bf16 } else { B::linear_rows };
    best::<B>(device, || {
        let product = apply(x.clone(), weight.clone());
        drop(Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(product)));
    })
}

/// The seconds that `work` takes in the best of some trials. Each trial is long enough that waiting for the device
/// costs little.
fn best<B: VlmBackend>(device: &B::Device, work: impl Fn()) -> Result<f64> {
    let trial = |times: u32| -> Result<f64> {
        let began = Instant::now();
        (0..times).for_each(|_| work());
        B::sync(device)?;
        Ok(began.elapsed().as_secs_f64() / f64::from(times))
    };
    // The first trial may compile kernels, or choose among them.
    trial(1)?;
    let times = (LONG / trial(1)?).ceil().clamp(1.0, 100.0) as u32;
    let mut best = f64::INFINITY;
    for _ in 0..TRIALS {
        best = best.min(trial(times)?);
    }
    Ok(best)
}
