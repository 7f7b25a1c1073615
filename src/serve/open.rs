//! A request that is being answered, as the connection sees it: its news, and what is written and counted at its end.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    api::ApiError,
    job::{Outcome, Update},
    state::State,
};
use crate::engine::Cancel;

/// A request that the model has, and what its answer says of it.
pub(super) struct Open {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) created: u64,
    pub(super) updates: UnboundedReceiver<Update>,
    pub(super) ended: Ended,
}

/// Cancels a request when it is dropped, which costs nothing once it has ended; counts it and writes its line.
pub(super) struct Ended {
    state: Arc<State>,
    cancel: Cancel,
    pub(super) arrived: Instant,
    first: Option<Duration>,
    /// The status of the answer, and what is said of it.
    outcome: Option<(StatusCode, String)>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.cancel.cancel();
        // 499 is what proxies write for a client that went away.
        let gone = (499, "the client went away".to_owned());
        let (status, words) = self.outcome.take().map_or(gone, |(status, words)| (status.as_u16(), words));
        self.state.metrics.answered(status);
        let seconds = self.arrived.elapsed().as_secs_f64();
        (self.state.settings().log)(&format!("{status} in {seconds:.2} s: {words}"));
    }
}

impl Ended {
    pub(super) fn new(state: Arc<State>, cancel: Cancel, arrived: Instant) -> Self {
        Self { state, cancel, arrived, first: None, outcome: None }
    }

    /// Notes that a token has come.
    pub(super) fn token(&mut self) {
        if self.first.is_none() {
            let time = self.arrived.elapsed();
            self.first = Some(time);
            self.state.metrics.first_token.observe(time.as_secs_f64());
        }
    }

    /// Notes the answer's end.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        let Outcome { usage, timings, pruned, .. } = outcome;
        self.state.metrics.used(usage, Duration::from_secs_f64(timings.decode / 1e3));
        let words = format!(
            "{}, {} of {} visual tokens, {} tokens in, {} out",
            pruned.method,
            pruned.visual_tokens,
            pruned.visual_tokens_before,
            usage.prompt_tokens,
            usage.completion_tokens,
        );
        self.outcome = Some((StatusCode::OK, words));
    }

    /// Notes an error.
    pub(super) fn fail(&mut self, error: &ApiError) {
        self.outcome = Some((error.status, error.message.clone()));
    }
}
