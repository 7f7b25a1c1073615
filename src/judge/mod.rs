//! A language model as judge, behind OpenAI's chat interface, which most servers of models speak.
//!
//! A request that was answered once is not sent again: replies are kept beside the answers, by a hash of the request.

mod address;
mod cache;
mod wording;

use std::{
    collections::BTreeSet,
    fmt,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use address::Address;
use cache::{Cache, Reply};
use rayon::prelude::*;
use wording::{Asked, Completed, Manners, completion, without_thoughts};

use crate::{
    Error,
    words::{count, excerpt},
};

/// The address, the model and the price of a judge.
#[derive(Clone, Debug)]
pub struct JudgeConfig {
    /// The address before `/chat/completions`.
    pub url: String,
    /// The name of the model at that address.
    pub model: String,
    /// The bearer token that the server wants.
    pub key: Option<String>,
    /// The dollars for a million tokens, of requests and of replies.
    pub price: Option<[f64; 2]>,
}

/// A request to the judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The message to the judge.
    pub text: String,
    /// The longest reply in tokens.
    pub max_tokens: u32,
    /// The temperature of the first try.
    pub temperature: f64,
}

/// An open judge.
pub struct Judge {
    config: JudgeConfig,
    address: Address,
    agent: ureq::Agent,
    cache: Mutex<Cache>,
    /// The models that replies came from, as the server names them.
    versions: Mutex<BTreeSet<String>>,
    /// The form of the requests that the server takes, as far as it is known.
    manners: Mutex<Manners>,
}

/// The verdicts that were read from replies, in the order of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdicts<T> {
    /// The verdict on each request; `None` where no reply could be read.
    pub read: Vec<Option<T>>,
    /// A reply that could not be read, of a request without a verdict.
    pub unread: Option<String>,
}

/// The cost of a list of requests, if every first reply can be scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The number of requests without a kept reply.
    pub requests: usize,
    /// The number of requests with a kept reply.
    pub known: usize,
    /// The number of tokens sent, at four characters each.
    pub sent: u64,
    /// The largest number of tokens in the replies.
    pub replied: u64,
    /// The price in dollars, if prices were given.
    pub dollars: Option<f64>,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, known, sent, replied, dollars } = self;
        write!(
            f,
            "{} to send ({known} were answered before), about {sent} tokens, up to {replied} back",
            count(*requests, "request")
        )?;
        dollars.map_or(Ok(()), |dollars| write!(f, ", about ${dollars:.2}; more where a reply cannot be scored"))
    }
}

/// How often a request is sent if the server does not answer.
const TRIES: u32 = 6;
/// How often a request is sent if its reply cannot be scored, each time with a higher temperature, as MM-Vet's evaluator does.
const READINGS: u32 = 5;
/// The number of requests under way at once.
const PARALLEL: usize = 8;
/// The number of requests without a readable reply after which a judge is given up, if it gave no readable reply at all.
const GIVE_UP: usize = 3;

/// Checks that `url` can be the address of a judge.
///
/// # Errors
/// When it is no http address.
pub fn check_address(url: &str) -> Result<(), Error> {
    Address::parse(url).map(|_| ())
}

impl Judge {
    /// Opens a judge with the replies of the file `cache`, if it is there; new replies are added to the file.
    ///
    /// # Errors
    /// When the address is no http address, or the file cannot be read.
    pub fn open(config: JudgeConfig, cache: &Path) -> Result<Self, Error> {
        let address = Address::parse(&config.url)?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(600)))
            .http_status_as_error(false)
            // A key that is meant for one server is sent to no other.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .build()
            .into();
        let (cache, versions, manners) = (Mutex::new(Cache::open(cache)?), Mutex::default(), Mutex::default());
        Ok(Self { config, address, agent, cache, versions, manners })
    }

    /// The model and the address of the judge, and the versions that its replies name if they differ from the model.
    pub fn name(&self) -> String {
        let (url, model) = (self.address.shown(), secateur_weights::printable(&self.config.model));
        let versions = locked(&self.versions);
        let others: Vec<String> = versions
            .iter()
            .filter(|version| **version != self.config.model)
            .map(|version| secateur_weights::printable(version))
            .collect();
        match &others[..] {
            [] => format!("{model} at {url}"),
            others => format!("{model} ({}) at {url}", others.join(", ")),
        }
    }

    /// The cost of `requests`, if every first reply can be scored.
    pub fn estimate(&self, requests: &[Request]) -> Estimate {
        let cache = locked(&self.cache);
        let new: Vec<&Request> = requests
            .iter()
            .filter(|request| cache.get(&self.config.url, &self.asked(request, 0).key()).is_none())
            .collect();
        let sent = new.iter().map(|request| request.text.chars().count() as u64 / 4 + 8).sum();
        let replied = new.iter().map(|request| u64::from(request.max_tokens)).sum();
        let dollars = self.config.price.map(|[to, from]| (sent as f64 * to + replied as f64 * from) / 1e6);
        Estimate { requests: new.len(), known: requests.len() - new.len(), sent, replied, dollars }
    }

    /// Sends the requests, and reads the replies with `read`; `on_reply` is called after each request.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or replies with something else, or when none of its replies can be
    /// read; the replies so far are kept.
    pub fn ask<T: Send>(
        &self,
        requests: &[Request],
        read: impl Fn(&str) -> Option<T> + Sync,
        on_reply: impl Fn() + Sync,
    ) -> Result<Verdicts<T>, Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(PARALLEL).build();
        let pool = pool.map_err(|_| self.error("cannot be asked: this machine gives no threads".to_owned()))?;
        let (readable, unread) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        let one = |request: &Request| {
            let mut first = None;
            for reading in 0..READINGS {
                let reply = self.reply(&self.asked(request, reading))?;
                if let Some(found) = read(without_thoughts(&reply)) {
                    readable.fetch_add(1, Ordering::Relaxed);
                    return Ok(Some(found));
                }
                first.get_or_insert(reply);
            }
            let mut unread = locked(&unread);
            unread.extend(first);
            // Otherwise a judge without readable replies would be paid for the whole benchmark.
            if unread.len() >= GIVE_UP && readable.load(Ordering::Relaxed) == 0 {
                return Err(self.unreadable(&unread));
            }
            Ok(None)
        };
        let read: Result<Vec<Option<T>>, Error> =
            pool.install(|| requests.par_iter().map(|request| one(request).inspect(|_| on_reply())).collect());
        let (read, unread) = (read?, unread.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        if !unread.is_empty() && read.iter().all(Option::is_none) {
            return Err(self.unreadable(&unread));
        }
        Ok(Verdicts { read, unread: unread.into_iter().next() })
    }

    fn unreadable(&self, replies: &[String]) -> Error {
        let first = replies.first().map_or("", String::as_str);
        let shown = if first.trim().is_empty() { "an empty text".to_owned() } else { format!("`{}`", excerpt(first)) };
        self.error(format!(
            "gives replies that hold no grade, asked {READINGS} times for each, the first of them {shown}; nothing was scored, \
             --judge-model names another model and --judge-prompt another instruction"
        ))
    }

    /// The request for the try number `reading`, from 0.
    fn asked(&self, request: &Request, reading: u32) -> Asked {
        // 2 is the most that servers take.
        let temperature = (request.temperature + 0.5 * f64::from(reading)).min(2.0);
        let (model, text) = (self.config.model.clone(), request.text.clone());
        Asked { model, text, temperature, max_tokens: request.max_tokens }
    }

    /// The reply to a request, from the kept replies or from the server.
    fn reply(&self, asked: &Asked) -> Result<String, Error> {
        let key = asked.key();
        if let Some(reply) = locked(&self.cache).get(&self.config.url, &key) {
            self.note(reply);
            return Ok(reply.text.clone());
        }
        let reply = self.send(asked)?;
        self.note(&reply);
        locked(&self.cache).add(&self.config.url, &key, &reply)?;
        Ok(reply.text)
    }

    fn note(&self, reply: &Reply) {
        locked(&self.versions).extend(reply.model.clone());
    }

    /// Sends a request until the server answers. It changes the fields that the server refuses, and raises the limit of
    /// tokens where the server used all of them up for thoughts.
    fn send(&self, asked: &Asked) -> Result<Reply, Error> {
        let (mut attempt, mut reason) = (0, String::new());
        while attempt < TRIES {
            let manners = *locked(&self.manners);
            let sent = self.post(&asked.body(manners));
            let wait = match sent {
                Ok(Answered { status: 200, text, .. }) => match completion(&text) {
                    Some(Completed { reply, cut: true }) if reply.text.trim().is_empty() => {
                        if !locked(&self.manners).make_room(manners) {
                            return Ok(reply);
                        }
                        continue;
                    }
                    Some(Completed { reply, .. }) => return Ok(reply),
                    None => {
                        let said = excerpt(&text);
                        return Err(self.error(format!("does not answer like OpenAI's chat interface: `{said}`")));
                    }
                },
                Ok(Answered { status: status @ (400 | 422), text, .. }) => {
                    // Another request may have changed the form meanwhile.
                    let learnt = *locked(&self.manners) != manners || locked(&self.manners).learn(&text);
                    if learnt {
                        continue;
                    }
                    return Err(self.error(format!("answers with status {status}: {}", excerpt(&text))));
                }
                Ok(Answered { status, text, after }) => {
                    self.refused(status, &text)?;
                    reason = format!("answers with status {status}, {TRIES} times: {}", excerpt(&text));
                    after
                }
                Err(why) => {
                    reason = why;
                    None
                }
            };
            attempt += 1;
            if attempt < TRIES {
                std::thread::sleep(wait.unwrap_or(Duration::from_secs(1 << (attempt - 1))));
            }
        }
        Err(self.error(format!("{reason}; replies so far are kept, run it again later")))
    }

    /// The error for a status that another try does not change.
    fn refused(&self, status: u16, text: &str) -> Result<(), Error> {
        let said = excerpt(text);
        Err(self.error(match status {
            408 | 409 | 429 | 500.. => return Ok(()),
            300..=399 => format!("redirects to another place (status {status}); --judge-url names that place itself"),
            401 | 403 => format!("refuses the key (status {status}); set OPENAI_API_KEY to one that it takes"),
            404 => format!("answers with status 404: {said}; --judge-model names a model that it has"),
            _ => format!("answers with status {status}: {said}"),
        }))
    }

    fn post(&self, body: &str) -> Result<Answered, String> {
        let mut request = self.agent.post(self.address.target()).header("Content-Type", "application/json");
        if let Some(authorization) = self.address.authorization(self.config.key.as_deref()) {
            request = request.header("Authorization", authorization);
        }
        let mut response = request.send(body).map_err(|error| match error {
            ureq::Error::Timeout(_) => "does not answer in ten minutes".to_owned(),
            _ => "cannot be reached".to_owned(),
        })?;
        let status = response.status().as_u16();
        let after = response.headers().get("Retry-After").and_then(|after| after.to_str().ok()?.trim().parse().ok());
        let after = after.map(|seconds: u64| Duration::from_secs(seconds.min(120)));
        let text = response.body_mut().read_to_string().map_err(|_| "breaks off".to_owned())?;
        Ok(Answered { status, text, after })
    }

    fn error(&self, reason: String) -> Error {
        let reason = self.address.without_secrets(&reason, self.config.key.as_deref());
        Error::Judge { url: self.address.shown(), reason }
    }
}

/// The response of a server.
struct Answered {
    status: u16,
    text: String,
    /// The time to wait before the next try, if the server names one.
    after: Option<Duration>,
}

/// Locks a mutex, also if a thread that held it panicked.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
