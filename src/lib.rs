//! Training-free visual token pruning for vision-language models.
//!
//! ```text
//! picture ── image:: ──▶ crops ──▶ pixels [crops, 3, side, side] ── ClipVision ──▶ VisionOutput { features, … }
//! Cues { features, cls_attention?, projected?, prompt_embeds?, image_embeds?, text_embeds?, keys? }
//!                                                                   ── Pruner ──▶ Keep [crops, budget], ascending
//! kept features ── Projector ──▶ [crops, budget, hidden] ── sequence:: ──▶ [tokens, hidden]
//! question ── text:: ──▶ Prompt (ids, one mark a picture) ── splice ──▶ embeds [1, sequence, hidden]
//! embeds ── Llama (LayerPruner inside?) + KvCache ──▶ generate:: ──▶ answer ── task:: ──▶ Report
//! ```
//!
//! A video is read by `video::`; its frames are crops too, which a tower of their own sees.
//!
//! Everything from the pixels to the logits is generic over [`secateur_backends::VlmBackend`].

pub mod analysis;
pub mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cost;
pub mod dataset;
pub mod demo;
mod error;
pub mod eval;
mod files;
pub mod generate;
mod hash;
pub mod image;
pub mod judge;
pub mod model;
#[cfg(test)]
#[path = "../tests/common/mutants.rs"]
mod mutants;
#[cfg(feature = "cli")]
pub mod plot;
pub mod pruner;
#[cfg(feature = "cli")]
mod published;
pub mod sequence;
pub mod shard;
pub mod task;
mod tensor;
pub mod text;
mod unwind;
pub mod video;
mod words;

pub use error::Error;
