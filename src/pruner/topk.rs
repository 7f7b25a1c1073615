//! The selection that score-based methods share.

use burn::tensor::{Tensor, backend::Backend};

use super::{Keep, check_budget};
use crate::{Error, tensor::host};

/// Keeps the `budget` best patches of every crop by `score` `[crops, patches]`; of equal scores it keeps the first.
///
/// The order is total (NaN ranks last), so equal scores give equal picks on every backend; PyTorch leaves the order
/// of ties open.
///
/// # Errors
/// When the budget is not between 1 and the patch count.
pub fn top_k<B: Backend>(score: Tensor<B, 2>, budget: usize) -> Result<Keep, Error> {
    let [_, patches] = score.dims();
    check_budget(budget, patches)?;
    let indices = host(score)
        .chunks(patches)
        .map(|crop| {
            let mut order = ranked(crop.iter().copied().map(f64::from));
            order.truncate(budget);
            order
        })
        .collect();
    Ok(Keep::new(indices, budget))
}

/// The patches from the best score to the worst. Equal scores stay in patch order, and NaN comes last.
pub(super) fn ranked(scores: impl IntoIterator<Item = f64>) -> Vec<usize> {
    let scores: Vec<f64> = scores.into_iter().map(|s| if s.is_nan() { f64::NEG_INFINITY } else { s + 0.0 }).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // Adding 0 made −0 and 0 equal; a stable sort leaves ties in patch order.
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}
