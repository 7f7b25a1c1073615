//! A request on its way to the model, and the news of it on the way back.

use std::{sync::Arc, time::Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedSender};

use super::{
    api::{ApiError, Pruned, Pruning, Timings, TokenLogprob, Usage},
    queue::Ticket,
};
use crate::{
    engine::{Cancel, Decoding, SharedMedia},
    text::Turn,
};

/// A request on its way to the model.
pub(super) struct Job {
    pub(super) asked: Asked,
    /// Where its tokens go.
    pub(super) updates: UnboundedSender<Update>,
    pub(super) cancel: Cancel,
    pub(super) arrived: Instant,
    /// Its place in the queue.
    pub(super) ticket: Ticket,
    /// Its part of the bound on pixels.
    pub(super) part: OwnedSemaphorePermit,
}

/// A turn of a request.
#[derive(Debug)]
pub(super) struct AskedTurn {
    pub(super) turn: Turn,
    /// The user's text with placeholders where its images stand.
    pub(super) placed: String,
    /// The number of its images.
    pub(super) images: usize,
}

/// What a request asks.
pub(super) struct Asked {
    /// The system's text, in place of the model's own.
    pub(super) system: Option<String>,
    /// The turns.
    pub(super) turns: Vec<AskedTurn>,
    /// The images of all turns.
    pub(super) media: Vec<Arc<SharedMedia>>,
    pub(super) pruning: Pruning,
    pub(super) decoding: Decoding,
    /// Number that picks the answer's random numbers.
    pub(super) draw: u64,
    pub(super) stops: Vec<String>,
    /// The number of alternatives for each token; `None` without log probabilities.
    pub(super) alternatives: Option<usize>,
}

/// News of a request.
#[derive(Debug)]
pub(super) enum Update {
    /// The answer has another token. Its text may be empty: it can wait for the rest of a character, or for what may be a stop text.
    Token { text: String, logprob: Option<TokenLogprob> },
    /// The answer has ended.
    Ended(Result<Box<Outcome>, ApiError>),
}

/// The end of an answer.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Text that was held back until the end.
    pub(super) text: String,
    pub(super) finish: &'static str,
    pub(super) usage: Usage,
    pub(super) timings: Timings,
    pub(super) pruned: Pruned,
}
