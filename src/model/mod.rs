//! The networks, with field names as in the Hugging Face checkpoints, so that rename tables stay short.

mod cache;
mod clip;
mod config;
mod layers;
mod llama;
mod llava;
mod open;
mod projector;
mod rope;

pub use cache::KvCache;
pub use clip::{ClipVision, Sight};
pub use config::{ClipVisionConfig, LlamaConfig, LlavaConfig};
pub use layers::{LayerNorm, Linear, RmsNorm};
pub use llama::Llama;
pub use llava::{Llava, Seen};
pub use open::{Layout, Opened, open};
pub use projector::Projector;
