//! The networks, with field names as in the Hugging Face checkpoints, so that rename tables stay short.

mod cache;
mod clip;
mod config;
mod copies;
mod finite;
mod layers;
mod llama;
mod llava;
mod names;
mod open;
mod projector;
mod rope;
mod see;
mod shape;

pub use cache::KvCache;
pub use clip::{ClipJoint, ClipText, ClipVision, Sight};
pub use config::{ClipTextConfig, ClipVisionConfig, Layout, LlamaConfig, LlavaConfig, Pictures};
pub use layers::{LayerNorm, Linear, RmsNorm};
pub use llama::{LayerCut, Llama, Part};
pub use llava::{Llava, TilingChoice, check_layer};
pub use open::{DEMO, LoadOptions, Opened, is_tower, open};
pub use projector::Projector;
pub use see::{Look, Seen, Spliced};
pub use shape::{SHAPES, shaped};
