//! What the threads of a server share.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::Sender,
    },
    time::{SystemTime, UNIX_EPOCH},
};

use axum::http::StatusCode;
use secateur_backends::VlmBackend;
use tokio::sync::{Notify, Semaphore};

use super::{
    Settings,
    api::{ApiError, Offer},
    job::Job,
    media::Images,
    metrics::Metrics,
    queue::Queue,
    queue::RETRY_AFTER,
};
use crate::model::Model;

/// The largest body of a request, in bytes.
pub(super) const MOST_BODY: usize = 50 << 20;
/// The bytes of all bodies that are read at a time, in KiB.
const BODIES_KIB: usize = 512 << 10;

/// The state of a server.
#[derive(Debug)]
pub(super) struct State {
    settings: Settings,
    /// The way to the model's thread; closed when the server stops.
    jobs: Mutex<Option<Sender<Job>>>,
    /// What the model offers, once it is loaded.
    pub(super) ready: OnceLock<Served>,
    stopping: AtomicBool,
    /// Tells the server to stop.
    pub(super) stop: Notify,
    pub(super) queue: Queue,
    pub(super) images: Arc<Images>,
    pub(super) bodies: Arc<Semaphore>,
    pub(super) metrics: Metrics,
    /// When the server began, in seconds since 1970.
    pub(super) began: u64,
    /// The number of requests so far, for their ids and their random numbers.
    requests: AtomicUsize,
}

/// What a loaded model offers.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) offer: Offer,
    /// The largest number of tokens of a prompt and its answer.
    pub(super) context: usize,
}

impl Served {
    pub(super) fn new<B: VlmBackend>(model: &Model<B>, settings: &Settings) -> Self {
        let Settings { methods, missing, usual, .. } = settings;
        let offer = Offer { methods: methods.clone(), missing: missing.clone(), usual: *usual, grid: model.grid() };
        Self { offer, context: model.decoder_config().max_position_embeddings }
    }
}

impl State {
    pub(super) fn new(settings: Settings, jobs: Sender<Job>) -> Self {
        let images = Images::new(settings.remote_images, settings.media_path.clone());
        Self {
            queue: Queue::new(settings.queue),
            settings,
            jobs: Mutex::new(Some(jobs)),
            ready: OnceLock::new(),
            stopping: AtomicBool::new(false),
            stop: Notify::new(),
            images: Arc::new(images),
            bodies: Arc::new(Semaphore::new(BODIES_KIB)),
            metrics: Metrics::new(),
            began: now(),
            requests: AtomicUsize::new(0),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What the model offers.
    ///
    /// # Errors
    /// With status 503 while the model is loaded, and when the server stops.
    pub(super) fn served(&self) -> Result<&Served, ApiError> {
        let unavailable = |code, message: &str| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        if self.is_stopping() {
            return Err(unavailable("stopping", "the server is stopping and takes no new requests"));
        }
        self.ready.get().ok_or_else(|| unavailable("loading", "the model is being loaded").retry_after(RETRY_AFTER))
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Takes no new requests from now on.
    pub(super) fn begin_to_stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Lets the model's thread end once it has answered what it has.
    pub(super) fn close(&self) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Hands a request to the model's thread.
    ///
    /// # Errors
    /// When the server stops.
    pub(super) fn submit(&self, job: Job) -> Result<(), ApiError> {
        let jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok());
        if sent {
            Ok(())
        } else {
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "the server is stopping"))
        }
    }

    /// The number of a new request, from 0.
    pub(super) fn number(&self) -> usize {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
