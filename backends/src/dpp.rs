//! The best set of a determinantal point process, searched greedily: "Fast Greedy MAP Inference for Determinantal Point
//! Process to Improve Recommendation Diversity", <https://arxiv.org/abs/1709.05135>, algorithm 1.
//!
//! Items are vectors, and the kernel is the matrix of their products. Each step chooses the vector with the longest
//! rest, and removes its direction from all others. The rest of a vector falls to nothing when the chosen vectors span
//! it. From then on it is rounding noise, and the item waits until no other item is left. Then the longest vectors come first.
//!
//! Similar items make the kernel's differences tiny: in f32 products, flat areas of an image drown in rounding, and
//! other items are chosen than in f64. On the host the products are f64. Devices without f64 remove directions from the
//! vectors themselves, which loses half as many digits as doing so in the kernel.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use gemm::Parallelism;
use rayon::prelude::*;

/// The share of a vector's square length below which the rest of the vector is noise.
const NOISE: f64 = 1e-10;

/// A number above any square length, subtracted from the score of a chosen item so that it is not chosen again.
const TAKEN: f32 = f32::MAX / 4.0;

/// Computes [`crate::VlmBackend::greedy_dpp`] on the device: no step waits for the host.
///
/// # Panics
/// When `budget` is 0, or more than there are items.
pub fn on_device<B: Backend>(vectors: Tensor<B, 3>, budget: usize) -> Tensor<B, 2, Int> {
    let [sets, items, width] = vectors.dims();
    check(items, budget);
    let device = vectors.device();
    let length = |vectors: &Tensor<B, 3>| vectors.clone().square().sum_dim(2).reshape([sets, items]);
    let own = length(&vectors);
    let floor = own.clone() * NOISE;
    // The scores of items whose rest is noise lie below every length: from −2 to −1, by the item's own length.
    let last = own.clone() / own.clone().max_dim(1).clamp_min(f32::MIN_POSITIVE) - 2.0;
    let numbers = Tensor::<B, 1, Int>::arange(0..items as i64, &device).reshape([1, items]).expand([sets, items]);

    let (mut vectors, mut left) = (vectors, own);
    let mut taken = Tensor::<B, 2>::zeros([sets, items], &device);
    let mut chosen = Vec::with_capacity(budget);
    for _ in 0..budget {
        let open = left.clone().greater(floor.clone());
        let score = last.clone().mask_where(open, left.clone()) - taken.clone();
        let item = score.argmax(1);
        let row = vectors.clone().gather(1, item.clone().reshape([sets, 1, 1]).expand([sets, 1, width]));
        let square = left.clone().gather(1, item.clone());
        let noise = square.clone().lower_equal(floor.clone().gather(1, item.clone()));
        let scale = square.mask_fill(noise.clone(), 1.0).sqrt().recip().mask_fill(noise, 0.0);
        let direction = row * scale.unsqueeze_dim(2);
        // This is not a matrix product: GPUs may round the inputs of one.
        let shares = (vectors.clone() * direction.clone()).sum_dim(2);
        vectors = vectors - shares * direction;
        left = length(&vectors);
        taken = taken + numbers.clone().equal(item.clone().expand([sets, items])).float() * TAKEN;
        chosen.push(item);
    }
    Tensor::cat(chosen, 1)
}

/// Computes [`crate::VlmBackend::greedy_dpp`] on the host, in f64, with a thread for each set. It is for backends whose
/// device is the host.
///
/// # Panics
/// As [`on_device`].
pub fn on_host<B: Backend>(vectors: Tensor<B, 3>, budget: usize) -> Tensor<B, 2, Int> {
    let [sets, items, width] = vectors.dims();
    check(items, budget);
    let device = vectors.device();
    // A tensor in f32 reads back as f32.
    let vectors = vectors.into_data().convert::<f32>().into_vec::<f32>().unwrap_or_default();
    let kernels = vectors.chunks(items * width).map(|vectors| products(vectors, width)).collect::<Vec<_>>();
    let chosen: Vec<i32> = kernels.par_iter().flat_map_iter(|kernel| greedy(kernel, budget)).collect();
    Tensor::from_data(TensorData::new(chosen, [sets, budget]), &device)
}

fn check(items: usize, budget: usize) {
    assert!((1..=items).contains(&budget), "{budget} of {items} items cannot be chosen");
}

/// The products of all pairs of vectors of `width` numbers, row by row, in f64: `[items, items]`.
///
/// # Panics
/// When `width` is 0.
pub fn products(vectors: &[f32], width: usize) -> Vec<f64> {
    let items = vectors.len() / width;
    let wide: Vec<f64> = vectors.iter().copied().map(f64::from).collect();
    let mut kernel = vec![0.0; items * items];
    let (rows, inner) = (items as isize, width as isize);
    // SAFETY: `wide` is [items, width], read as itself and as its transpose; `kernel` is [items, items]; both are
    // row-major and outlive the call.
    unsafe {
        gemm::gemm(
            items,
            items,
            width,
            kernel.as_mut_ptr(),
            1,
            rows,
            false,
            wide.as_ptr(),
            1,
            inner,
            wide.as_ptr(),
            inner,
            1,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
    kernel
}

fn greedy(kernel: &[f64], budget: usize) -> Vec<i32> {
    let items = kernel.len().isqrt();
    let own: Vec<f64> = (0..items).map(|i| kernel[i * items + i]).collect();
    let longest = own.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    let mut left = own.clone();
    let mut taken = vec![false; items];
    let mut directions: Vec<Vec<f64>> = Vec::with_capacity(budget);
    (0..budget)
        .map(|_| {
            let score = |i: usize| if left[i] > own[i] * NOISE { left[i] } else { own[i] / longest - 2.0 };
            let open = (0..items).filter(|&i| !taken[i]);
            let item = open.reduce(|best, i| if score(i) > score(best) { i } else { best }).unwrap_or_default();
            taken[item] = true;
            if left[item] > own[item] * NOISE {
                let direction = remaining(&kernel[item * items..][..items], &directions, item, left[item]);
                left.iter_mut().zip(&direction).for_each(|(left, share)| *left -= share * share);
                directions.push(direction);
            }
            item as i32
        })
        .collect()
}

/// The part of every vector along the rest of `item`. `row` has the products of `item` with all vectors.
fn remaining(row: &[f64], directions: &[Vec<f64>], item: usize, left: f64) -> Vec<f64> {
    let mut rest = row.to_vec();
    for direction in directions {
        let share = direction[item];
        rest.iter_mut().zip(direction).for_each(|(rest, value)| *rest -= share * value);
    }
    let scale = left.sqrt().recip();
    rest.iter_mut().for_each(|rest| *rest *= scale);
    rest
}
