//! The hub itself: requests that are tried again, given up when nothing comes, and explained when they fail.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    time::Duration,
};

use hf_hub::{
    Repo,
    api::{
        Progress, RepoInfo,
        sync::{Api, ApiBuilder, ApiError, ApiRepo, Metadata},
    },
};
use indicatif::ProgressBar;

use super::{cache, cache_root};

/// Tries to go on with a broken connection, and how long to wait before each.
const RETRIES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// How long nothing may come, in seconds, unless `HF_HUB_DOWNLOAD_TIMEOUT` says otherwise.
const PATIENCE: u64 = 60;

/// One repository on the hub.
pub(super) struct Client {
    api: Api,
    repo: Repo,
}

/// Why a file is not there.
pub(super) enum Failure {
    /// What is there of it cannot be gone on with: it is longer than the file, or the whole file.
    StalePart,
    /// What to tell people.
    Sentence(String),
}

impl Failure {
    fn sentence(self) -> String {
        match self {
            Self::Sentence(sentence) => sentence,
            Self::StalePart => "cannot be fetched: the hub has less of it than it said".to_owned(),
        }
    }
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self::Sentence(sentence)
    }
}

impl Client {
    pub(super) fn new(repo: Repo) -> Result<Self, String> {
        // hf-hub's own retries ask for what was missing at the start, not for what is missing now.
        let mut builder = ApiBuilder::from_cache(cache()).with_retries(0);
        if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
            let endpoint = endpoint.trim_end_matches('/').to_owned();
            let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
            if host.is_none_or(|host| host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control())) {
                return Err(format!("cannot be fetched: HF_ENDPOINT is `{endpoint}`, which is no http address"));
            }
            builder = builder.with_endpoint(endpoint);
        }
        let token =
            std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        // The saved login lies in the home, wherever the cache is.
        builder = builder.with_token(token.or_else(|| hf_hub::Cache::new(cache_root().join("hub")).token()));
        builder = builder.with_user_agent("secateur", env!("CARGO_PKG_VERSION"));
        let api = builder.build().map_err(|error| sentence(&error))?;
        Ok(Self { api, repo })
    }

    /// Its commit and files.
    pub(super) fn info(&self) -> Result<RepoInfo, String> {
        self.again_and_again(|| 0, || self.patiently(|repo, _| repo.info())).map_err(Failure::sentence)
    }

    /// What is known of a file before it is downloaded.
    pub(super) fn metadata(&self, name: &str) -> Result<Metadata, String> {
        let ask = || {
            let (api, name) = (self.api.clone(), name.to_owned());
            self.patiently(move |repo, _| api.metadata(&repo.url(&name)))
        };
        self.again_and_again(|| 0, ask).map_err(Failure::sentence)
    }

    /// Downloads a file, or the rest of it; `part` is where hf-hub keeps what is there.
    pub(super) fn download(&self, name: &str, part: &Path) -> Result<PathBuf, Failure> {
        let there = || part.metadata().map_or(0, |file| file.len());
        let ask = || {
            let name = name.to_owned();
            self.patiently(move |repo, moved| {
                repo.download_with_progress(&name, Watched { bar: ProgressBar::new(0), moved: moved.clone() })
            })
        };
        self.again_and_again(there, ask)
    }

    /// Tries again what may pass, a few times since there was last something new.
    fn again_and_again<T>(
        &self,
        there: impl Fn() -> u64,
        ask: impl Fn() -> Result<Result<T, ApiError>, String>,
    ) -> Result<T, Failure> {
        let (mut waits, mut before) = (RETRIES.iter(), there());
        loop {
            // What stalled is not tried again: the thread that waits for it still has hf-hub's lock.
            let error = match ask()? {
                Ok(found) => return Ok(found),
                Err(ApiError::InvalidResume) => return Err(Failure::StalePart),
                Err(error) if status(&error) == Some(416) => return Err(Failure::StalePart),
                Err(error) => error,
            };
            let now = there();
            if now > before {
                (waits, before) = (RETRIES.iter(), now);
            }
            match waits.next() {
                Some(wait) if may_pass(&error) => std::thread::sleep(*wait),
                _ => return Err(sentence(&error).into()),
            }
        }
    }

    /// Does `work` on a thread of its own, and no longer waits for it when nothing has come for a while: hf-hub has no
    /// such limit.
    fn patiently<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ApiRepo, &Moved<T>) -> T + Send + 'static,
    ) -> Result<T, String> {
        let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|text| text.parse().ok());
        let seconds = seconds.filter(|&seconds| seconds > 0).unwrap_or(PATIENCE);
        let repo = self.api.repo(self.repo.clone());
        let (sender, events) = mpsc::channel();
        let moved = Moved(sender);
        // A thread that is no longer waited for ends with the process.
        std::thread::spawn(move || {
            let done = work(&repo, &moved);
            moved.0.send(Event::Done(done))
        });
        loop {
            match events.recv_timeout(Duration::from_secs(seconds)) {
                Ok(Event::Moved) => {}
                Ok(Event::Done(done)) => return Ok(done),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!(
                        "cannot be fetched: the hub has sent nothing for {seconds} s; run it again, it goes on where it stopped"
                    ));
                }
                Err(RecvTimeoutError::Disconnected) => return Err("cannot be fetched: hf-hub failed".to_owned()),
            }
        }
    }
}

/// What a thread that works on a request says of it.
enum Event<T> {
    /// Bytes came.
    Moved,
    /// It is over.
    Done(T),
}

/// Where it says so.
struct Moved<T>(Sender<Event<T>>);

impl<T> Clone for Moved<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// A bar for people, and word of every byte.
struct Watched<T> {
    bar: ProgressBar,
    moved: Moved<T>,
}

impl<T> Progress for Watched<T> {
    fn init(&mut self, size: usize, name: &str) {
        self.bar.init(size, name);
    }

    fn update(&mut self, size: usize) {
        // Nobody hears it who no longer waits.
        let _ = self.moved.0.send(Event::Moved);
        Progress::update(&mut self.bar, size);
    }

    fn finish(&mut self) {
        Progress::finish(&mut self.bar);
    }
}

/// Whether another try may help.
fn may_pass(error: &ApiError) -> bool {
    match (status(error), error) {
        (Some(status), _) => status >= 500 || status == 429,
        (None, ApiError::IoError(error)) => !is_of_the_disk(error),
        // Nobody is there, and nobody will be in a few seconds.
        (None, ApiError::RequestError(error)) => {
            let is_refused = |io: &io::Error| io.kind() == io::ErrorKind::ConnectionRefused;
            !matches!(&**error, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed)
                && !matches!(&**error, ureq::Error::Io(io) if is_refused(io))
        }
        (None, _) => false,
    }
}

/// The status that the server answered with.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        _ => None,
    }
}

/// Whether it is the cache that cannot be written, and not the connection that broke.
fn is_of_the_disk(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let kinds =
        [Kind::StorageFull, Kind::QuotaExceeded, Kind::ReadOnlyFilesystem, Kind::PermissionDenied, Kind::FileTooLarge];
    kinds.contains(&error.kind())
}

/// What went wrong in the cache, for people.
pub(super) fn in_cache(folder: &Path, error: &io::Error) -> String {
    let folder = folder.display();
    let variable = if std::env::var_os("HF_HUB_CACHE").is_some() { "HF_HUB_CACHE" } else { "HF_HOME" };
    format!(
        "the cache {folder} cannot be read or written ({error}): make room there, or set {variable} to another folder"
    )
}

/// What went wrong, for people.
fn sentence(error: &ApiError) -> String {
    match (status(error), error) {
        // The hub does not tell strangers which it is.
        (Some(401 | 404), _) => {
            "is not on the hub, or not open to everyone: check the id, or set HF_TOKEN to a token that may read it"
                .to_owned()
        }
        (Some(403), _) => {
            "is not open to this HF_TOKEN, or not without one: accept its terms on its page, with the account \
                           that the token belongs to"
                .to_owned()
        }
        (Some(status), _) => format!("cannot be fetched: the hub answered with status {status}; try again later"),
        (None, ApiError::IoError(error)) if is_of_the_disk(error) => in_cache(cache().path(), error),
        (None, ApiError::LockAcquisition(_)) => "is being downloaded by another process; wait for it".to_owned(),
        (None, ApiError::MissingHeader(_) | ApiError::InvalidHeader(_) | ApiError::ParseIntError(_)) => {
            format!("cannot be fetched: HF_ENDPOINT does not answer like a hub ({error})")
        }
        (None, error) => {
            format!("cannot be fetched: the hub cannot be reached, or the connection broke ({error})")
        }
    }
}
