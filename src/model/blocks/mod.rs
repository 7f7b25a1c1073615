//! Blocks that families share: products, norms, rotary positions, the cache of keys and values, and the decoder.

mod cache;
pub(super) mod decoder;
mod linear;
mod norm;
mod rope;
#[cfg(all(test, feature = "flex"))]
pub(super) mod testing;

pub use cache::KvCache;
pub use decoder::{Chunk, Decoder, LayerCut, Outputs, Positions, Weights};
pub use linear::{Build, Linear, Slots};
pub(super) use linear::{Slot, bytes, unfilled};
pub use norm::{LayerNorm, RmsNorm};
pub use rope::Rope;
