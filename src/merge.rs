//! Kept tokens to the sequence that the language model reads.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::pruner::Keep;

/// The kept rows of `tokens` `[crops, patches, width]`, as `[crops, kept, width]`.
pub fn gather<B: Backend>(tokens: Tensor<B, 3>, keep: &Keep) -> Tensor<B, 3> {
    let [crops, patches, width] = tokens.dims();
    if keep.budget() == patches {
        return tokens;
    }
    let rows: Vec<i32> = keep
        .indices()
        .iter()
        .enumerate()
        .flat_map(|(crop, kept)| kept.iter().map(move |&patch| (crop * patches + patch) as i32))
        .collect();
    let rows = TensorData::new(rows.clone(), [rows.len()]);
    let rows = Tensor::<B, 1, Int>::from_data(rows, &tokens.device());
    tokens.reshape([crops * patches, width]).select(0, rows).reshape([crops, keep.budget(), width])
}

/// LLaVA-1.5: one crop, its tokens in order; `[1, kept, hidden]` → `[kept, hidden]`.
pub fn flat<B: Backend>(kept: Tensor<B, 3>) -> Tensor<B, 2> {
    kept.flatten(0, 1)
}
