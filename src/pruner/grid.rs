//! Grid: patches at even distances. The floor for methods that claim to know where to look.
//!
//! The budget is spread over as many rows as it has columns, as near as it goes: the rows lie at even distances, and so do
//! the patches in each row, of which a row has one more than another where the budget does not divide.

use secateur_backends::VlmBackend;

use super::{Cues, Keep, Method, Pruner, check_budget};
use crate::Error;

/// The floor.
#[derive(Clone, Copy, Debug)]
pub struct Grid;

impl Method for Grid {
    fn name(&self) -> &'static str {
        "grid"
    }

    fn idea(&self) -> &'static str {
        "keeps patches at even distances: a floor"
    }

    fn paper(&self) -> &'static str {
        ""
    }
}

impl<B: VlmBackend> Pruner<B> for Grid {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        Ok(Keep::new(vec![spread(budget, patches); crops], budget))
    }
}

/// `budget` of `patches` in a square grid; a patch count that is no square is one long row.
fn spread(budget: usize, patches: usize) -> Vec<usize> {
    let side = patches.isqrt();
    let (width, height) = if side * side == patches { (side, side) } else { (patches, 1) };
    let rows = ((budget as f64).sqrt().round() as usize).max(budget.div_ceil(width)).min(height);
    (0..rows)
        .flat_map(|row| {
            let count = (row + 1) * budget / rows - row * budget / rows;
            let y = middle(row, rows, height);
            (0..count).map(move |column| y * width + middle(column, count, width))
        })
        .collect()
}

/// Where the `i`th of `count` equal parts of `length` has its middle.
fn middle(i: usize, count: usize, length: usize) -> usize {
    (2 * i + 1) * length / (2 * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_budget_is_a_square_of_middles() {
        assert_eq!(spread(4, 16), [5, 7, 13, 15]);
        assert_eq!(spread(1, 9), [4]);
        assert_eq!(spread(16, 16), (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn every_budget_of_every_shape_is_spent_once() {
        for patches in [1, 2, 7, 16, 49, 256] {
            for budget in 1..=patches {
                let mut kept = spread(budget, patches);
                kept.dedup();
                assert_eq!(kept.len(), budget, "{budget} of {patches}");
                assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept[budget - 1] < patches);
            }
        }
    }
}
