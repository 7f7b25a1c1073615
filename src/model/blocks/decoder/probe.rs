//! Probes that look into a pass through the decoder: attention maps, a cut between layers, the search for numbers that are not finite.

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

/// A probe that looks into a pass, layer by layer; by default it reads nothing and changes nothing.
pub(super) trait Probe<B: VlmBackend> {
    /// Whether the pass was cancelled: it then ends before the next layer.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// The number of layers that run, of `all`.
    fn layers(&self, all: usize) -> usize {
        all
    }

    /// Takes the result of a part of a layer, whose weights are at the path `part` in the layer.
    fn result(&mut self, _layer: usize, _part: &'static str, _x: &Tensor<B, 3>) {}

    /// Takes a chunk's queries `[batch, heads, rows, head_dim]` and the keys that they meet, `[batch, kv_heads, tokens, head_dim]`, rotated.
    fn attention(&mut self, _layer: usize, _q: &Tensor<B, 4>, _k: &Tensor<B, 4>) {}

    /// The rows of a pass with a single chunk that go on after a layer; `None` for all.
    fn keep(&mut self, _layer: usize) -> Option<Vec<usize>> {
        None
    }
}

/// A probe that reads nothing, and ends the pass before the next layer once a function says so.
pub(super) struct Unless<'a>(pub(super) &'a dyn Fn() -> bool);

impl<B: VlmBackend> Probe<B> for Unless<'_> {
    fn is_cancelled(&self) -> bool {
        self.0()
    }
}
