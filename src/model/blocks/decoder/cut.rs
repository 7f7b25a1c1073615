//! Visual tokens that are dropped on the way through the layers, as FastV does.

use burn::tensor::{Int, Tensor, TensorData};
use secateur_backends::VlmBackend;

use super::{attention::last_row, probe::Probe};
use crate::{Error, pruner::LayerPruner};

/// A cut between two layers: the visual tokens, and the number of them to keep.
pub struct LayerCut<'a, B: VlmBackend> {
    /// The method that chooses.
    pub pruner: &'a dyn LayerPruner<B>,
    /// The rows of the visual tokens in the prompt, ascending.
    pub visual: &'a [usize],
    /// The number of visual tokens to keep.
    pub budget: usize,
    /// Whether the pass was cancelled: it then ends before the next layer.
    pub is_cancelled: &'a dyn Fn() -> bool,
}

/// A cut that is made during a pass, and the visual tokens that it kept.
pub(super) struct Cut<'a, B: VlmBackend> {
    cut: &'a LayerCut<'a, B>,
    /// Number of rows of the prompt.
    rows: usize,
    kept: Result<Vec<usize>, Error>,
}

impl<'a, B: VlmBackend> Cut<'a, B> {
    pub(super) fn new(cut: &'a LayerCut<'a, B>, rows: usize) -> Self {
        Self { cut, rows, kept: Ok(Vec::new()) }
    }

    /// The visual tokens that were kept, as indices into [`LayerCut::visual`].
    pub(super) fn kept(self) -> Result<Vec<usize>, Error> {
        self.kept
    }

    /// The layer whose attention decides.
    fn layer(&self) -> usize {
        self.cut.pruner.layer() - 1
    }
}

impl<B: VlmBackend> Probe<B> for Cut<'_, B> {
    fn is_cancelled(&self) -> bool {
        (self.cut.is_cancelled)()
    }

    fn attention(&mut self, layer: usize, q: &Tensor<B, 4>, k: &Tensor<B, 4>) {
        if layer == self.layer() {
            let visual: Vec<i32> = self.cut.visual.iter().map(|&row| row as i32).collect();
            let visual = Tensor::<B, 1, Int>::from_data(TensorData::new(visual.clone(), [visual.len()]), &q.device());
            self.kept = self.cut.pruner.keep(last_row(q, k).select(1, visual), self.cut.budget);
        }
    }

    fn keep(&mut self, layer: usize) -> Option<Vec<usize>> {
        let kept = self.kept.as_ref().ok().filter(|_| layer == self.layer())?;
        let mut stays = vec![true; self.rows];
        self.cut.visual.iter().for_each(|&row| stays[row] = false);
        kept.iter().for_each(|&i| stays[self.cut.visual[i]] = true);
        Some((0..self.rows).filter(|&row| stays[row]).collect())
    }
}
