//! Training-free visual token pruning for vision-language models.
//!
//! An example, from a checkpoint to an answer as it comes:
//!
//! ```no_run
#![doc = include_str!("../examples/answer.rs")]
//! ```
//!
//! # How data flow
//!
//! ```text
//! file ── image, video ──▶ Media ── Vlm::preprocess ──▶ Views ── Vlm::encode ──▶ VisionOutput ──▶ Cues
//! Cues ── Pruner::keep ──▶ Keep ── Vlm::project, Vlm::sequence ──▶ VisualTokens [tokens, hidden]
//! question ── text ──▶ Prompt (ids, a placeholder an image) ── Model::place ──▶ EmbeddedPrompt [1, sequence, hidden]
//! EmbeddedPrompt ── engine: admit → prefill → decode → retire ──▶ ids ── text ──▶ answer ── task ──▶ Report
//! ```
//!
//! Everything from the pixels to the logits is generic over [`secateur_backends::VlmBackend`].
//!
//! # Words
//!
//! | word | meaning |
//! |---|---|
//! | image, video, frame | what a user gives; a video is some of its frames |
//! | crop | a square part of an image that the vision tower reads at once |
//! | item | a crop, a frame, or a whole image: what a budget is for |
//! | patch | a square of pixels that becomes one token of the tower |
//! | token, grid | a row of the decoder's input; how an item's tokens lie |
//! | tower, projector, decoder | the vision encoder, the way from its features to embeddings, the language model |
//! | method, budget, keep | how tokens are chosen, how many of an item stay, those that stay |
//! | cue | what a method reads: attention, features, embeddings |
//! | blend | a token that a method makes of several |
//! | placeholder | what stands for an image in a prompt |
//! | chunk, sequence | the rows of one request in a pass, all of its tokens |
//! | prefill, decode | reading a prompt, then one token at a time |
//! | engine, request | what answers many questions side by side, one of them |
//! | run, shard | a benchmark's questions answered once, a part of them |
//! | mark, unit | what an answer is worth; what is drawn at random when questions are drawn |
//! | baseline | a method to compare with: none, random, grid |

#![forbid(unsafe_code)]

pub mod analysis;
pub mod checksum;
#[cfg(feature = "cli")]
pub mod cli;
pub mod cost;
pub mod dataset;
pub mod demo;
#[cfg(feature = "cli")]
mod drawing;
pub mod engine;
mod error;
pub mod eval;
mod files;
mod hash;
pub mod image;
pub mod judge;
pub mod messages;
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
#[cfg(feature = "serve")]
pub mod serve;
pub mod shard;
pub mod statistics;
pub mod task;
mod tensor;
pub mod text;
mod unwind;
pub mod video;
mod words;

pub use error::Error;
