//! The similarity of patches.

use burn::tensor::{Tensor, backend::Backend};
use rayon::prelude::*;
use secateur_backends::dpp::products;

use crate::tensor::host;

/// The cosines of every pair of patches of each crop, `[patches, patches]` row by row, in f64.
///
/// They are computed on the host and in f64, whatever the backend: f32 sums change choices that the official code's own
/// rounding does not, and GPUs may round the inputs of an f32 product further. Rows of length zero are like nothing.
pub(super) fn cosines<B: Backend>(features: Tensor<B, 3>) -> Vec<Vec<f64>> {
    let [_, patches, width] = features.dims();
    let features = host(features);
    features.chunks(patches * width).map(|crop| normalised(products(crop, width))).collect()
}

/// Turns the products of all pairs into cosines.
fn normalised(mut products: Vec<f64>) -> Vec<f64> {
    let patches = products.len().isqrt();
    let scales: Vec<f64> = (0..patches)
        .map(|i| products[i * patches + i].sqrt())
        .map(|norm| if norm > 0.0 { norm.recip() } else { 0.0 })
        .collect();
    products.par_chunks_mut(patches).zip(&scales).for_each(|(row, own)| {
        row.iter_mut().zip(&scales).for_each(|(value, other)| *value *= own * other);
    });
    products
}
