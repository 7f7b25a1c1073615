//! What looks into a pass through the decoder on its way: attention maps, a cut between layers, the search for numbers that are not finite.

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

/// A look into a pass, layer by layer; by default it sees nothing and changes nothing.
pub(super) trait Probe<B: VlmBackend> {
    /// Whether nobody waits for the pass any more: it ends before the next layer.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// How many of `all` layers run.
    fn layers(&self, all: usize) -> usize {
        all
    }

    /// The result of a part of a layer, whose weights are at `part` in it.
    fn result(&mut self, _layer: usize, _part: &'static str, _x: &Tensor<B, 3>) {}

    /// A chunk's queries `[batch, heads, rows, head_dim]` and the keys that they meet, `[batch, kv_heads, tokens, head_dim]`, rotated.
    fn attention(&mut self, _layer: usize, _q: &Tensor<B, 4>, _k: &Tensor<B, 4>) {}

    /// Which rows of a pass with a single chunk go on after a layer; `None` for all.
    fn keep(&mut self, _layer: usize) -> Option<Vec<usize>> {
        None
    }
}

/// No look, but an end before the next layer where a function says so.
pub(super) struct Unless<'a>(pub(super) &'a dyn Fn() -> bool);

impl<B: VlmBackend> Probe<B> for Unless<'_> {
    fn is_cancelled(&self) -> bool {
        self.0()
    }
}
