//! A language model as judge, behind OpenAI's chat interface, which most servers of models speak.
//!
//! What was asked once is not asked again: replies are kept beside the answers, by a hash of the request.

mod cache;

use std::{collections::BTreeSet, fmt, path::Path, sync::Mutex, time::Duration};

use cache::{Cache, Reply};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::Error;

/// Where a judge is, and how it is paid.
#[derive(Clone, Debug)]
pub struct JudgeConfig {
    /// The address before `/chat/completions`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// What the server wants as a bearer token.
    pub key: Option<String>,
    /// Dollars for a million tokens, of requests and of replies.
    pub price: Option<[f64; 2]>,
}

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is said to the judge.
    pub text: String,
    /// The longest reply in tokens.
    pub max_tokens: u32,
    /// How freely it replies when asked for the first time.
    pub temperature: f64,
}

/// An open judge.
pub struct Judge {
    config: JudgeConfig,
    agent: ureq::Agent,
    cache: Mutex<Cache>,
    /// The models that replies came from, as the server names them.
    versions: Mutex<BTreeSet<String>>,
}

/// What a list of requests will cost, if every first reply can be scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Requests without a reply from before.
    pub requests: usize,
    /// Requests with one.
    pub known: usize,
    /// Tokens sent, at four characters each.
    pub sent: u64,
    /// Tokens that come back at most.
    pub replied: u64,
    /// Dollars, if prices were given.
    pub dollars: Option<f64>,
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, known, sent, replied, dollars } = self;
        write!(
            f,
            "{requests} requests to send ({known} were answered before), about {sent} tokens, up to {replied} back"
        )?;
        dollars.map_or(Ok(()), |dollars| write!(f, ", about ${dollars:.2}; more where a reply cannot be scored"))
    }
}

/// How often a request is sent that the server does not answer.
const TRIES: u32 = 6;
/// How often it is sent when the reply is none that can be scored, each time with a higher temperature, as MM-Vet's evaluator does.
const READINGS: u32 = 5;
/// Requests under way at once.
const PARALLEL: usize = 8;

#[derive(Deserialize)]
struct Completion {
    model: Option<String>,
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

/// Checks that `url` can be a judge's.
///
/// # Errors
/// When it is no http address.
pub fn check_address(url: &str) -> Result<(), Error> {
    if ["http://", "https://"].iter().any(|start| url.starts_with(start)) {
        return Ok(());
    }
    let reason = "has no http address; give one as in --judge-url http://localhost:8000/v1".to_owned();
    Err(Error::Judge { url: url.to_owned(), reason })
}

impl Judge {
    /// With the replies that the file `cache` holds, if it is there; new ones are added to it.
    ///
    /// # Errors
    /// When the address is none, or the file cannot be read.
    pub fn open(config: JudgeConfig, cache: &Path) -> Result<Self, Error> {
        check_address(&config.url)?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(300)))
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self { config, agent, cache: Mutex::new(Cache::open(cache)?), versions: Mutex::default() })
    }

    /// The judge's name and place, and the version that its replies name if it is another name.
    pub fn name(&self) -> String {
        let JudgeConfig { url, model, .. } = &self.config;
        let versions = self.versions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let others: Vec<&str> = versions.iter().map(String::as_str).filter(|version| version != model).collect();
        match &others[..] {
            [] => format!("{model} at {url}"),
            others => format!("{model} ({}) at {url}", others.join(", ")),
        }
    }

    /// What `requests` will cost, if every first reply can be scored.
    pub fn estimate(&self, requests: &[Request]) -> Estimate {
        let cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let new: Vec<&Request> =
            requests.iter().filter(|request| cache.get(&self.config.url, &self.body(request, 0)).is_none()).collect();
        let sent = new.iter().map(|request| request.text.chars().count() as u64 / 4 + 8).sum();
        let replied = new.iter().map(|request| u64::from(request.max_tokens)).sum();
        let dollars = self.config.price.map(|[to, from]| (sent as f64 * to + replied as f64 * from) / 1e6);
        Estimate { requests: new.len(), known: requests.len() - new.len(), sent, replied, dollars }
    }

    /// What `read` makes of the replies, in the order of the requests; `None` where no reply could be read. `on_reply` is
    /// called after each.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or replies with something else; the replies so far are kept.
    pub fn ask<T: Send>(
        &self,
        requests: &[Request],
        read: impl Fn(&str) -> Option<T> + Sync,
        on_reply: impl Fn() + Sync,
    ) -> Result<Vec<Option<T>>, Error> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(PARALLEL).build();
        let pool = pool.map_err(|error| self.error(format!("no threads to ask with ({error})")))?;
        let one = |request: &Request| {
            for reading in 0..READINGS {
                if let Some(read) = read(&self.reply(&self.body(request, reading))?) {
                    return Ok(Some(read));
                }
            }
            Ok(None)
        };
        pool.install(|| requests.par_iter().map(|request| one(request).inspect(|_| on_reply())).collect())
    }

    /// The request as it is sent for the `reading`th time.
    fn body(&self, request: &Request, reading: u32) -> String {
        // 2 is the most that servers take.
        let temperature = (request.temperature + 0.5 * f64::from(reading)).min(2.0);
        let message = json!({"role": "user", "content": request.text});
        json!({"model": self.config.model, "messages": [message], "temperature": temperature, "max_tokens": request.max_tokens})
            .to_string()
    }

    /// The reply to a request, from before or from the server.
    fn reply(&self, body: &str) -> Result<String, Error> {
        let cache = || self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(reply) = cache().get(&self.config.url, body) {
            self.note(reply);
            return Ok(reply.text.clone());
        }
        let reply = self.send(body)?;
        self.note(&reply);
        cache().add(&self.config.url, body, &reply)?;
        Ok(reply.text)
    }

    fn note(&self, reply: &Reply) {
        let mut versions = self.versions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        versions.extend(reply.model.clone());
    }

    fn send(&self, body: &str) -> Result<Reply, Error> {
        let url =
            format!("{}/chat/completions", self.config.url.trim_end_matches('/').trim_end_matches("/chat/completions"));
        let mut reason = String::new();
        for attempt in 0..TRIES {
            let mut request = self.agent.post(&url).header("Content-Type", "application/json");
            if let Some(key) = &self.config.key {
                request = request.header("Authorization", format!("Bearer {key}"));
            }
            let mut wait = Duration::from_secs(1 << attempt);
            match request.send(body) {
                Err(error) => reason = format!("cannot be reached ({error})"),
                Ok(mut response) => {
                    let status = response.status().as_u16();
                    let after =
                        response.headers().get("Retry-After").and_then(|after| after.to_str().ok()?.parse().ok());
                    wait = after.map_or(wait, |seconds: u64| Duration::from_secs(seconds.min(120)));
                    let body = response.body_mut().read_to_string();
                    let said: String = body.as_deref().unwrap_or_default().chars().take(300).collect();
                    let said = said.trim();
                    match (status, body) {
                        (200, Ok(text)) => return self.content(&text),
                        (200, Err(error)) => reason = format!("breaks off ({error})"),
                        (408 | 409 | 429 | 500.., _) => {
                            reason = format!("answers with status {status}, {TRIES} times: {said}");
                        }
                        (401 | 403, _) => {
                            return Err(self.error(format!(
                                "refuses the key (status {status}); set OPENAI_API_KEY to one that it takes"
                            )));
                        }
                        (404, _) => {
                            return Err(self.error(format!(
                                "answers with status 404: {said}; --judge-model names a model that it has"
                            )));
                        }
                        _ => return Err(self.error(format!("answers with status {status}: {said}"))),
                    }
                }
            }
            if attempt + 1 < TRIES {
                std::thread::sleep(wait);
            }
        }
        Err(self.error(format!("{reason}; replies so far are kept, run it again later")))
    }

    fn content(&self, text: &str) -> Result<Reply, Error> {
        let completion: Option<Completion> = serde_json::from_str(text).ok();
        let choice = completion.and_then(|Completion { model, choices }| Some((choices.into_iter().next()?, model)));
        match choice {
            Some((choice, model)) => Ok(Reply { text: choice.message.content.unwrap_or_default(), model }),
            None => {
                let said: Value = text.chars().take(200).collect::<String>().into();
                Err(self.error(format!("does not answer like OpenAI's chat interface: {said}")))
            }
        }
    }

    fn error(&self, reason: String) -> Error {
        Error::Judge { url: self.config.url.clone(), reason }
    }
}
