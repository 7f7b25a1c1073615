//! An HTTP server in front of the engine: OpenAI's chat completions, with a method and a budget for each request, and a page to see it.
//!
//! The thread that starts the server owns the model. Another one answers connections and hands requests over through a bounded queue.

mod api;
mod body;
mod chat;
mod client;
mod connections;
mod drawings;
mod job;
mod keys;
mod logprobs;
mod media;
mod metrics;
mod open;
mod page;
mod queue;
mod routes;
mod state;
mod stops;
mod stream;
mod worker;

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use job::Job;
pub use keys::Keys;
use secateur_backends::VlmBackend;
use state::{Served, State};

use crate::{
    engine::{Decoding, Limits},
    model::Model,
    pruner::{Budget, Params},
};

/// Threads that read images beside each other. Each keeps memory of its own, and some wait for hosts of the web.
const READERS: usize = 16;

/// The settings of a server.
pub struct Settings {
    /// The names that requests may call the model by; the first is in the answers.
    pub names: Vec<String>,
    /// The keys of which a request must have one; without any, everybody may ask.
    pub keys: Keys,
    /// The number of requests that may wait; more are refused with status 429.
    pub queue: usize,
    /// The limits of the engine.
    pub limits: Limits,
    /// The settings for answers of requests that have none of their own.
    pub decoding: Decoding,
    /// The seed of random numbers.
    pub seed: u64,
    /// The method and the budget of requests that have none of their own.
    pub usual: (&'static str, Option<Budget>),
    /// The parameters of the methods.
    pub params: Params,
    /// The methods that the checkpoint can run.
    pub methods: Vec<&'static str>,
    /// The methods that it cannot run, with the reasons.
    pub missing: Vec<(&'static str, String)>,
    /// Whether images are fetched from the web.
    pub remote_images: bool,
    /// The folder below which `file:` addresses are read.
    pub media_path: Option<PathBuf>,
    /// The web pages of other hosts that may ask: an origin, or `*`.
    pub cors: Option<String>,
    /// Time for the requests in flight when the server is told to stop.
    pub grace: Duration,
    /// Time for a client to send the head of a request, and twice as long to send its body.
    pub patience: Duration,
    /// Takes a line for every request, and notes.
    pub log: Box<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Settings").field("names", &self.names).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A server that answers connections; the model is still to be loaded.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
    jobs: mpsc::Receiver<Job>,
    thread: JoinHandle<io::Result<()>>,
}

/// Stops a server as SIGTERM does, from any thread.
#[derive(Clone, Debug)]
pub struct Stop(Arc<State>);

impl Stop {
    /// Stops the server: no request is taken any more, and those in flight get their time.
    pub fn stop(&self) {
        self.0.stop.notify_one();
    }
}

impl Server {
    /// Answers connections on `listener` from now on: until the model is there, with status 503.
    ///
    /// # Errors
    /// When the system gives no thread, or the address is not usable.
    pub fn start(listener: TcpListener, settings: Settings) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (sender, jobs) = mpsc::channel();
        let state = Arc::new(State::new(settings, sender));
        let shared = state.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(READERS)
            .build()?;
        let answer = move || runtime.block_on(connections::answer(listener, shared));
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(answer)?;
        Ok(Self { address, state, jobs, thread })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that stops the server.
    pub fn stopper(&self) -> Stop {
        Stop(self.state.clone())
    }

    /// Answers requests with `model` until the server is stopped. This thread is the model's.
    ///
    /// # Errors
    /// When the system takes the server's connections away.
    pub fn run<B: VlmBackend>(self, model: &Model<B>) -> io::Result<()> {
        let _ = self.state.ready.set(Served::new(model, self.state.settings()));
        worker::work(model, &self.jobs, &self.state);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the server's thread broke off")))
    }
}
