//! The wire's types: what a client sends, and what it gets.

mod answer;
mod content;
mod error;
mod options;
mod request;

pub(super) use answer::{
    Choice, Chunk, Completion, Delta, Drawing, ImageTokens, Logprobs, Message, Pruned, Timings, TokenLogprob, Usage,
};
pub(super) use content::{Conversation, ImageSource, UserTurn};
pub(super) use error::ApiError;
pub(super) use options::{Offer, Pruning};
pub(super) use request::ChatRequest;
