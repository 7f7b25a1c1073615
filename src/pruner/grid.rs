//! Grid: patches at even distances. The baseline for methods that claim to know where to look.
//!
//! The budget is spread over as many rows as columns, as nearly as possible. The rows lie at even distances, and so do
//! the patches in each row. Where the budget does not divide evenly, some rows have one patch more than others.

use secateur_backends::VlmBackend;

use super::{Card, Cues, Keep, Method, Pruner, check_budget};
use crate::{Error, image::Grid as Layout};

/// The grid baseline.
#[derive(Clone, Copy, Debug)]
pub struct Grid;

impl Method for Grid {
    fn card(&self) -> Card {
        Card { name: "grid", idea: "keeps patches at even distances: a baseline", ..Card::default() }
    }
}

impl<B: VlmBackend> Pruner<B> for Grid {
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let (crops, patches) = cues.grid(self.name())?;
        check_budget(budget, patches)?;
        let layout = cues.layout.unwrap_or_else(|| Layout::square(patches));
        Ok(Keep::new(vec![spread(budget, layout); crops], budget))
    }
}

/// Chooses `budget` patches of a grid; several frames count as one high frame.
fn spread(budget: usize, layout: Layout) -> Vec<usize> {
    let (width, height) = (layout.columns, layout.frames * layout.rows);
    let rows = ((budget as f64).sqrt().round() as usize).max(budget.div_ceil(width)).min(height);
    (0..rows)
        .flat_map(|row| {
            let count = (row + 1) * budget / rows - row * budget / rows;
            let y = middle(row, rows, height);
            (0..count).map(move |column| y * width + middle(column, count, width))
        })
        .collect()
}

/// The middle of the `i`th of `count` equal parts of `length`.
fn middle(i: usize, count: usize, length: usize) -> usize {
    (2 * i + 1) * length / (2 * count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_square_budget_is_a_square_of_middles() {
        assert_eq!(spread(4, Layout::square(16)), [5, 7, 13, 15]);
        assert_eq!(spread(1, Layout::square(9)), [4]);
        assert_eq!(spread(16, Layout::square(16)), (0..16).collect::<Vec<_>>());
    }

    #[test]
    fn every_budget_of_every_shape_is_spent_once() {
        for patches in [1, 2, 7, 16, 49, 256] {
            for budget in 1..=patches {
                let mut kept = spread(budget, Layout::square(patches));
                kept.dedup();
                assert_eq!(kept.len(), budget, "{budget} of {patches}");
                assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept[budget - 1] < patches);
            }
        }
    }
}
