//! Keys and values of all tokens so far, in buffers that are written in place and seldom grow.

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur_backends::{VlmBackend, operations::write_positions};

use crate::model::DecoderConfig;

/// The state of one sequence: every layer's keys and values, and the position that comes next.
///
/// Where tokens are dropped inside the decoder, the layers above hold fewer of them; positions count on. The first layer holds all rows that were read.
pub struct KvCache<B: Backend> {
    layers: Vec<Option<KeysValues<B>>>,
    next: usize,
    prompt: usize,
    answer: usize,
    dtype: DType,
    device: B::Device,
}

/// The buffers of a layer, `[1, kv_heads, capacity, head_dim]`, of which the first `len` tokens are filled.
struct KeysValues<B: Backend> {
    keys: Tensor<B, 4>,
    values: Tensor<B, 4>,
    len: usize,
    capacity: usize,
}

/// Number of an answer's tokens that there is room for from the start.
const SPARE: usize = 64;

impl<B: VlmBackend> KvCache<B> {
    /// An empty cache for a prompt of `prompt` tokens and an answer of `answer`, whose keys and values are kept in `dtype`.
    pub fn new(config: &DecoderConfig, prompt: usize, answer: usize, dtype: DType, device: &B::Device) -> Self {
        let layers = (0..config.num_hidden_layers).map(|_| None).collect();
        Self { layers, next: 0, prompt, answer, dtype, device: device.clone() }
    }

    /// The position of the next token: larger than the number of tokens where tokens were dropped, and smaller where many tokens of an image share a
    /// position.
    pub fn next_position(&self) -> usize {
        self.next
    }

    /// Number of tokens that fit into a layer.
    pub fn capacity(&self) -> usize {
        self.prompt + self.answer
    }

    /// Whether no layer has room for another token.
    pub fn is_full(&self) -> bool {
        self.tokens(0) >= self.capacity()
    }

    /// Number of tokens whose keys and values a layer holds.
    pub fn tokens(&self, layer: usize) -> usize {
        self.layers[layer].as_ref().map_or(0, |slot| slot.len)
    }

    /// Bytes of the buffers.
    pub fn bytes(&self) -> usize {
        let numbers = |slot: &KeysValues<B>| 2 * slot.keys.shape().num_elements();
        self.layers.iter().flatten().map(numbers).sum::<usize>() * self.dtype.size()
    }

    /// Takes over the first `count` tokens of another cache, from which no token was dropped.
    pub fn start_with(&mut self, other: &Self, count: usize) {
        (0..self.layers.len()).for_each(|layer| self.take_over(layer, other, count));
        self.advance(count);
    }

    /// Takes over the first `count` tokens of another cache in one layer; positions are counted once, with [`Self::advance`].
    pub(super) fn take_over(&mut self, layer: usize, other: &Self, count: usize) {
        if let Some(slot) = &other.layers[layer] {
            let [keys, values] = [&slot.keys, &slot.values].map(|all| all.clone().narrow(2, 0, count));
            self.layers[layer] = Some(self.slot(&keys, self.prompt));
            self.append(layer, keys, values);
        }
    }

    /// Appends new keys and values `[1, kv_heads, n, head_dim]` to a layer and returns all of its tokens, in the cache's dtype.
    /// [`Self::advance`] is called once all layers have theirs.
    ///
    /// # Panics
    /// When there is no room: callers ask for enough, or stop.
    pub(super) fn append(&mut self, layer: usize, keys: Tensor<B, 4>, values: Tensor<B, 4>) -> [Tensor<B, 4>; 2] {
        let new = keys.dims()[2];
        // The buffers are taken out of the layer so that they are owned once and written in place. The first tokens of a layer are those of the
        // prompt that reach it.
        let taken = self.layers[layer].take();
        let mut slot = taken.unwrap_or_else(|| self.slot(&keys, new));
        let end = slot.len + new;
        assert!(end <= self.capacity(), "the cache holds {} tokens, not {end}", self.capacity());
        if end > slot.capacity {
            let count = end.max(slot.len * 3 / 2);
            slot = self.grown(slot, count);
        }
        slot.keys = write_positions(slot.keys, slot.len, keys);
        slot.values = write_positions(slot.values, slot.len, values);
        slot.len = end;
        let all = [slot.keys.clone().narrow(2, 0, end), slot.values.clone().narrow(2, 0, end)];
        self.layers[layer] = Some(slot);
        all
    }

    /// Empty buffers for `count` tokens with heads like those of `keys`, and for the beginning of an answer: most answers are shorter than they may
    /// be, and memory that is never read is still cleared.
    fn slot(&self, keys: &Tensor<B, 4>, count: usize) -> KeysValues<B> {
        let [batch, heads, _, head_dim] = keys.dims();
        let capacity = (count + self.answer.min(SPARE)).min(self.capacity());
        let empty = || Tensor::zeros([batch, heads, capacity, head_dim], (&self.device, self.dtype));
        KeysValues { keys: empty(), values: empty(), len: 0, capacity }
    }

    /// Copies a layer's tokens into larger buffers, with room for `count` tokens.
    fn grown(&self, KeysValues { keys, values, len, .. }: KeysValues<B>, count: usize) -> KeysValues<B> {
        let slot = self.slot(&keys, count);
        let [keys, values] = [keys, values].map(|all| all.narrow(2, 0, len));
        KeysValues {
            keys: write_positions(slot.keys, 0, keys),
            values: write_positions(slot.values, 0, values),
            len,
            capacity: slot.capacity,
        }
    }

    /// Sets the position that comes next.
    pub(super) fn advance(&mut self, next: usize) {
        self.next = next;
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use burn::tensor::Distribution;
    use secateur_backends::Flex;

    use super::*;

    /// Checks an answer that outgrows its room, token by token, for a prompt and for one that takes over its beginning.
    #[test]
    fn what_was_written_stays_while_it_grows() {
        let device = Default::default();
        let config = DecoderConfig { num_hidden_layers: 1, ..DecoderConfig::default() };
        let tokens = 5 + 3 * SPARE;
        let random = || Tensor::<Flex, 4>::random([1, 2, tokens, 4], Distribution::Default, &device);
        let (keys, values) = (random(), random());
        for dtype in [DType::F32, DType::BF16] {
            let from = |at: usize, count: usize| [&keys, &values].map(|all| all.clone().narrow(2, at, count));
            let filled = |before: Option<&KvCache<Flex>>| {
                let mut cache = KvCache::new(&config, 5, 3 * SPARE, dtype, &device);
                let start = before.map_or(0, |before| {
                    cache.start_with(before, 4);
                    4
                });
                for (at, count) in [(start, 5 - start)].into_iter().chain((5..tokens).map(|at| (at, 1))) {
                    let [new_keys, new_values] = from(at, count);
                    let all = cache.append(0, new_keys, new_values);
                    cache.advance(at + count);
                    for (found, expected) in all.into_iter().zip(from(0, at + count)) {
                        // Burn's own cast rounds a few numbers near the middle of two the wrong way.
                        found.into_data().assert_eq(&expected.into_data().convert_dtype(dtype), true);
                    }
                }
                assert_eq!((cache.next_position(), cache.is_full()), (tokens, true));
                cache
            };
            filled(Some(&filled(None)));
        }
    }
}
