//! Checkpoints, the networks that they fill, and the families that these belong to. Fields are named as in the Hugging Face checkpoints, so
//! that tables of names stay short.

mod blocks;
mod checkpoint;
mod config;
mod copies;
mod encode;
pub mod families;
mod fill;
mod finite;
mod gguf;
mod loaded;
mod mixture;
mod preset;
mod towers;
mod vlm;

pub use blocks::{
    Build, Chunk, Decoder, KvCache, LayerCut, LayerNorm, Linear, Outputs, Positions, RmsNorm, Rope, Slots, Weights,
};
pub use checkpoint::{Beside, Checkpoint, DEMO, LoadOptions, Pair, is_gguf, open};
pub use config::{DecoderConfig, Llama3Scaling, RopeConfig, RopeScaling};
pub use encode::{EmbeddedPrompt, EncodedMedia, RowKey, Scores, VisualTokens};
pub use families::llava::{LlavaConfig, Projector};
pub use fill::Fill;
pub use gguf::{GgufFile, GgufPart};
pub use loaded::{Model, PixelChoice, TilingChoice, check_layer};
pub use mixture::Quantise;
pub use preset::{preset, presets};
pub use towers::{
    clip::{ClipJoint, ClipText, ClipTextConfig, ClipVision, ClipVisionConfig, Joint, TextSide, VisionOutput},
    is_tower,
};
pub use vlm::{MediaPositions, Placement, Question, Shown, Stage, Views, Vlm};
