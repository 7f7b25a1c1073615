//! The selection that score-based methods share.

use burn::tensor::{DType, Tensor, backend::Backend};

use super::{Keep, check_budget};
use crate::Error;

/// Keeps the `budget` best patches of every crop by `score` `[crops, patches]`; of equal scores, the first.
///
/// The order is total (NaN ranks last), so equal scores give equal picks on every backend; PyTorch leaves the order
/// of ties open.
///
/// # Errors
/// When the budget is not between 1 and the patch count.
pub fn top_k<B: Backend>(score: Tensor<B, 2>, budget: usize) -> Result<Keep, Error> {
    let [_, patches] = score.dims();
    check_budget(budget, patches)?;
    let scores: Vec<f32> = score.cast(DType::F32).into_data().convert::<f32>().into_vec().unwrap_or_default();
    let rank = |value: f32| if value.is_nan() { f32::NEG_INFINITY } else { value };
    let indices = scores
        .chunks(patches)
        .map(|crop| {
            let mut order: Vec<usize> = (0..patches).collect();
            // A stable sort leaves ties in patch order.
            order.sort_by(|&a, &b| rank(crop[b]).total_cmp(&rank(crop[a])));
            order.truncate(budget);
            order
        })
        .collect();
    Ok(Keep::new(indices, budget))
}
