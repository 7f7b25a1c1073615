//! The attention mask: which keys a query sees.

use burn::tensor::{Bool, Tensor, TensorData, backend::Backend};

/// The mask of [`crate::VlmBackend::attend`]: which keys each query sees. The queries are the last of the keys' positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Every query sees all keys, as in a vision tower.
    None,
    /// A query sees its own position and those before it, as in a decoder.
    Causal,
    /// Several causal continuations of one beginning, side by side. Of the keys after the first `shared`, a query sees
    /// only those of its own `turn` positions, up to itself. In training, many questions about one image are asked in
    /// one pass in this way.
    Turns {
        /// The number of positions that all continuations see.
        shared: usize,
        /// The length of a continuation, at least 1; the last one may be shorter.
        turn: usize,
    },
}

impl Mask {
    /// Checks that queries `[batch, heads, tokens, head_dim]`, and keys and values `[batch, kv_heads, tokens,
    /// head_dim]`, belong together: each key head is shared by equally many query heads, one after another.
    ///
    /// # Panics
    /// When they do not belong together: bodies that read them in place would read other memory.
    pub(crate) fn check(self, [q, k, v]: [[usize; 4]; 3]) {
        let same = q[0] == k[0] && k == v && q[3] == k[3] && k[1] > 0 && q[1].is_multiple_of(k[1]);
        assert!(same, "attention of {q:?} on keys {k:?} and values {v:?}");
        assert!(self == Self::None || q[2] <= k[2], "{} queries are not the last of {} positions", q[2], k[2]);
    }

    /// The keys that the query at `position` sees: all before the first number, and those from the second up to the third.
    pub(crate) fn seen(self, position: usize, keys: usize) -> [usize; 3] {
        match self {
            Self::None => [keys; 3],
            Self::Causal => [position + 1; 3],
            Self::Turns { shared, .. } if position < shared => [position + 1; 3],
            Self::Turns { shared, turn } => [shared, position - (position - shared) % turn, position + 1],
        }
    }

    /// A tensor `[1, 1, queries, keys]` that is true where a key is hidden; `None` if no key is.
    pub(crate) fn hidden<B: Backend>(
        self,
        queries: usize,
        keys: usize,
        device: &B::Device,
    ) -> Option<Tensor<B, 4, Bool>> {
        match self {
            Self::None => return None,
            Self::Causal => {
                return Some(Tensor::tril_mask([1, 1, queries, keys], (keys - queries) as i64, device));
            }
            Self::Turns { .. } => {}
        }
        let row = |query: usize| {
            let [first, from, to] = self.seen(keys - queries + query, keys);
            (0..keys).map(move |key| key >= to || (first..from).contains(&key))
        };
        let hidden: Vec<bool> = (0..queries).flat_map(row).collect();
        Some(Tensor::from_data(TensorData::new(hidden, [1, 1, queries, keys]), device))
    }
}

/// The position of a query among the keys; the queries are the last of the positions. There are more queries than keys
/// only without a mask, where the position is not used.
#[cfg_attr(not(feature = "flex"), expect(dead_code))]
pub(crate) fn position(query: usize, queries: usize, keys: usize) -> usize {
    (keys + query).saturating_sub(queries)
}
