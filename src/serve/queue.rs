//! The bound on requests that wait.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::http::StatusCode;

use super::api::ApiError;

/// Seconds after which a request that found no place may come again.
pub(super) const RETRY_AFTER: u64 = 1;

/// A count of the requests that wait for the model, up to a limit.
#[derive(Debug)]
pub(super) struct Queue {
    most: usize,
    waiting: Arc<AtomicUsize>,
}

/// A place in the queue, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Ticket(Arc<AtomicUsize>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: Arc::default() }
    }

    /// The number of requests that wait for the model.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place in the queue.
    ///
    /// # Errors
    /// With status 429 when the queue is full.
    pub(super) fn ticket(&self) -> Result<Ticket, ApiError> {
        let most = self.most;
        let one_more = |waiting| (waiting < most).then_some(waiting + 1);
        let taken = self.waiting.try_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.map(|_| Ticket(self.waiting.clone())).map_err(|_| {
            let message = format!("{most} requests wait already, which is the most; try again later");
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).retry_after(RETRY_AFTER)
        })
    }
}
