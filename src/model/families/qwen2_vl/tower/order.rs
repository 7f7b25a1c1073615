//! The order in which the tower reads tokens: window by window, so that each window's patches stand one after another.

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};

use crate::image::Grid;

/// The order of an item's tokens in the tower.
///
/// Windows lie side by side from the upper left corner and are cut at the right and lower edge. The tower reads larger windows first, so that windows of
/// one size are neighbours: attention does not depend on the order of windows.
#[derive(Clone, Debug)]
pub(super) struct Order {
    /// The token, in the order of rows, at each place; `None` where that is the order.
    tokens: Option<Vec<usize>>,
    /// The windows of each size, one after another.
    pub(super) runs: Vec<Run>,
}

/// Windows of one size that stand one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// The number of windows.
    pub(super) count: usize,
    /// The tokens of each.
    pub(super) tokens: usize,
}

impl Order {
    /// The order of the tokens of `grid` in windows of so many tokens a side; without windows that of rows.
    pub(super) fn new(grid: Grid, window: Option<usize>) -> Self {
        let Some(side) = window else { return Self { tokens: None, runs: Vec::new() } };
        let starts = |length: usize| (0..length).step_by(side);
        let mut windows: Vec<Vec<usize>> = starts(grid.rows)
            .flat_map(|top| starts(grid.columns).map(move |left| (top, left)))
            .map(|(top, left)| {
                let rows = top..(top + side).min(grid.rows);
                rows.flat_map(|y| (left..(left + side).min(grid.columns)).map(move |x| y * grid.columns + x)).collect()
            })
            .collect();
        windows.sort_by_key(|window| std::cmp::Reverse(window.len()));
        let same = windows.chunk_by(|a, b| a.len() == b.len());
        let runs = same.map(|windows| Run { count: windows.len(), tokens: windows[0].len() }).collect();
        Self { tokens: Some(windows.concat()), runs }
    }

    /// The token at each place, of `count` tokens.
    pub(super) fn places(&self, count: usize) -> Vec<usize> {
        self.tokens.clone().unwrap_or_else(|| (0..count).collect())
    }

    /// Puts tokens `[items, tokens, width]`, which are in the order of rows, in this order.
    pub(super) fn forth<B: Backend>(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.tokens {
            Some(tokens) => select(x, tokens.iter().copied()),
            None => x,
        }
    }

    /// Puts tokens `[items, tokens, width]`, which are in this order, back in that of rows.
    pub(super) fn back<B: Backend>(&self, x: Tensor<B, 3>) -> Tensor<B, 3> {
        let Some(tokens) = &self.tokens else { return x };
        let mut places = vec![0; tokens.len()];
        tokens.iter().enumerate().for_each(|(place, &token)| places[token] = place);
        select(x, places.into_iter())
    }
}

fn select<B: Backend>(x: Tensor<B, 3>, rows: impl Iterator<Item = usize>) -> Tensor<B, 3> {
    let rows: Vec<i32> = rows.map(|row| row as i32).collect();
    let count = rows.len();
    let rows = Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [count]), &x.device());
    x.select(1, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a grid of 5 × 6 tokens in windows of 4 × 4: a whole one, one of 4 × 2, one of 1 × 4 and one of 1 × 2.
    #[test]
    fn windows_are_cut_at_the_edges() {
        let order = Order::new(Grid::image(5, 6), Some(4));
        let places = order.places(30);
        assert_eq!(places[..16], [0, 1, 2, 3, 6, 7, 8, 9, 12, 13, 14, 15, 18, 19, 20, 21]);
        assert_eq!(places[16..24], [4, 5, 10, 11, 16, 17, 22, 23]);
        assert_eq!(places[24..], [24, 25, 26, 27, 28, 29]);
        let sizes: Vec<(usize, usize)> = order.runs.iter().map(|run| (run.count, run.tokens)).collect();
        assert_eq!(sizes, [(1, 16), (1, 8), (1, 4), (1, 2)]);
    }

    #[test]
    fn every_token_has_one_place() {
        for (rows, columns, side) in [(1, 1, 4), (4, 4, 4), (7, 3, 2), (9, 9, 4), (1, 30, 4)] {
            let order = Order::new(Grid::image(rows, columns), Some(side));
            let mut places = order.places(rows * columns);
            places.sort_unstable();
            assert_eq!(places, (0..rows * columns).collect::<Vec<_>>(), "{rows} × {columns} by {side}");
            let all: usize = order.runs.iter().map(|run| run.count * run.tokens).sum();
            assert_eq!(all, rows * columns);
        }
    }
}
