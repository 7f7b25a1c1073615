//! Keys and values of all positions so far, in buffers allocated once.

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur_backends::VlmBackend;

use super::{LlamaConfig, rope::Rope};

/// The state of one sequence: every layer's keys and values, and the rotary tables for its length.
pub struct KvCache<B: Backend> {
    layers: Vec<Option<KeysValues<B>>>,
    pub(super) rope: Rope<B>,
    len: usize,
    capacity: usize,
}

/// `[1, kv_heads, capacity, head_dim]`, of which the first [`KvCache::len`] positions are filled.
struct KeysValues<B: Backend> {
    keys: Tensor<B, 4>,
    values: Tensor<B, 4>,
}

impl<B: VlmBackend> KvCache<B> {
    /// Room for `capacity` positions.
    pub fn new(config: &LlamaConfig, capacity: usize, dtype: DType, device: &B::Device) -> Self {
        let shape = [1, config.num_key_value_heads, capacity, config.head_dim()];
        let empty = || Tensor::zeros(shape, (device, dtype));
        let layers =
            (0..config.num_hidden_layers).map(|_| Some(KeysValues { keys: empty(), values: empty() })).collect();
        Self { layers, rope: Rope::new(config, capacity, device), len: 0, capacity }
    }

    /// Positions filled.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no position is filled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Appends `new` keys and values `[1, kv_heads, n, head_dim]` to a layer and returns all of its positions.
    /// [`Self::advance`] is called once all layers have theirs.
    pub(super) fn append(&mut self, layer: usize, keys: Tensor<B, 4>, values: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let end = self.len + keys.dims()[2];
        assert!(end <= self.capacity, "the cache holds {} positions, not {end}", self.capacity);
        // Taken out of the slot so that the buffers are owned once and written in place.
        let mut slot = self.layers[layer].take().expect("every layer's slot is refilled below");
        slot.keys = B::write_positions(slot.keys, self.len, keys);
        slot.values = B::write_positions(slot.values, self.len, values);
        let all = [slot.keys.clone().narrow(2, 0, end), slot.values.clone().narrow(2, 0, end)];
        self.layers[layer] = Some(slot);
        all
    }

    pub(super) fn advance(&mut self, new: usize) {
        self.len += new;
    }
}
