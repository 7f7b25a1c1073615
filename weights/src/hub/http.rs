//! Requests to the hub: redirects, the token, and how long to wait.
//!
//! The code is written here, over `ureq`, and not taken from `hf-hub`: its version 0.5 sends the token to every host
//! that a hub redirects to, takes checksums as file names without checking them, and hides the header that says how
//! long to wait.

use std::{
    io::Write,
    time::{Duration, SystemTime},
};

use ureq::http::{Response, header};
use url::Url;

/// The waits before each retry of a broken connection.
pub(super) const RETRIES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// The longest time that a hub may ask to wait, for all requests of a repository together.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// The timeout without a byte, in seconds, unless `HF_HUB_DOWNLOAD_TIMEOUT` sets another.
const PATIENCE: u64 = 60;

/// The largest number of redirects that are followed, one after another.
const REDIRECTS: usize = 10;

/// The hub's reply to a request.
pub(super) type Reply = Response<ureq::Body>;

/// A client with the hub's address and the user's token.
pub(super) struct Http {
    agent: ureq::Agent,
    endpoint: Url,
    token: Option<String>,
    /// The time that the hub has asked to wait so far.
    waited: std::cell::Cell<Duration>,
}

/// The reason why there is no reply.
pub(super) enum Refusal {
    /// A status other than 2xx and 3xx.
    Status(u16),
    /// The hub asks to wait for this time.
    TooSoon(Duration),
    /// The connection failed; another try may help.
    Broken(String),
    /// Another try will not help.
    Final(String),
}

impl Http {
    /// A client of `HF_ENDPOINT` with the token in `HF_TOKEN`, or with that of a saved login.
    ///
    /// # Errors
    /// When `HF_ENDPOINT` is no http address.
    pub(super) fn new() -> Result<Self, String> {
        let endpoint = std::env::var("HF_ENDPOINT").ok().filter(|endpoint| !endpoint.trim().is_empty());
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let url = Url::parse(&format!("{}/", endpoint.trim().trim_end_matches('/'))).ok();
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        let Some(url) = url else {
            // The address may hold a password.
            let shown = crate::text::printable(endpoint.rsplit('@').next().unwrap_or_default());
            return Err(format!("cannot be fetched: HF_ENDPOINT is `{shown}`, which is no http address"));
        };
        let token = std::env::var("HF_TOKEN").ok().map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty()).or_else(super::cache::saved_token);
        if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err("cannot be fetched: HF_TOKEN, or the saved login, is no token (it has spaces or other bytes)"
                .to_owned());
        }
        let patience = Some(Duration::from_secs(patience()));
        let agent = ureq::Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(patience)
            .timeout_recv_response(patience)
            .timeout_per_read(patience)
            .accept_encoding("identity")
            .user_agent(concat!("secateur/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { agent, endpoint: url, token, waited: std::cell::Cell::default() })
    }

    /// The hub's address, for people.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// The address of `parts` below the hub's address, each part escaped.
    pub(super) fn address(&self, parts: &[&str]) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(parts.iter().flat_map(|part| part.split('/')));
        }
        url
    }

    /// Sends a request once, and follows redirects until `enough` says that a reply need not be followed. The token
    /// goes to the hub's own scheme, host and port only.
    pub(super) fn get(
        &self,
        address: Url,
        range: Option<String>,
        enough: impl Fn(&Reply) -> bool,
    ) -> Result<Reply, Refusal> {
        let mut url = address;
        for _ in 0..=REDIRECTS {
            let mut request = self.agent.get(url.as_str());
            if let Some(token) = self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(range) = &range {
                request = request.header(header::RANGE, range);
            }
            let reply = request.call().map_err(|error| refusal(&error))?;
            let status = reply.status().as_u16();
            match status {
                200..=299 => return Ok(reply),
                300..=399 if enough(&reply) => return Ok(reply),
                301 | 302 | 303 | 307 | 308 => url = target(&url, &reply)?,
                _ => {
                    let wait = wait(&reply);
                    return Err(match wait.filter(|_| matches!(status, 429 | 503)) {
                        Some(wait) => Refusal::TooSoon(wait),
                        None => Refusal::Status(status),
                    });
                }
            }
        }
        Err(Refusal::Final("cannot be fetched: the hub redirects again and again".to_owned()))
    }

    /// Waits as long as the hub asks to, with a note on stderr.
    ///
    /// # Errors
    /// When the wait is too long.
    pub(super) fn wait(&self, wait: Duration) -> Result<(), String> {
        let waited = self.waited.get() + wait;
        if waited > LONGEST_WAIT {
            let raise = if self.token.is_some() { "" } else { ", and a token in HF_TOKEN raises the limit" };
            return Err(format!(
                "cannot be fetched now: the hub has had too many requests (status 429); come again in {}{raise}",
                in_words(wait)
            ));
        }
        self.waited.set(waited);
        // The program goes on if nobody reads stderr.
        let _ = writeln!(std::io::stderr(), "the hub asks to wait {}, it has had too many requests", in_words(wait));
        std::thread::sleep(wait);
        Ok(())
    }
}

/// The number of seconds without a byte after which a connection is given up.
fn patience() -> u64 {
    let seconds = std::env::var("HF_HUB_DOWNLOAD_TIMEOUT").ok().and_then(|text| text.trim().parse().ok());
    seconds.filter(|&seconds| seconds > 0).unwrap_or(PATIENCE)
}

/// The target of a redirect.
fn target(from: &Url, reply: &Reply) -> Result<Url, Refusal> {
    let fail = |reason: &str| Refusal::Final(format!("cannot be fetched: the hub redirects {reason}"));
    let place = reply.headers().get(header::LOCATION).and_then(|place| place.to_str().ok());
    let to = from.join(place.ok_or_else(|| fail("to nowhere"))?).map_err(|_| fail("to no address"))?;
    match (from.scheme(), to.scheme()) {
        (_, "https") | ("http", "http") => Ok(to),
        ("https", "http") => Err(fail("from https to http, where anyone can change what is sent")),
        _ => Err(fail("to something other than http")),
    }
}

/// The time that the hub asks to wait: seconds or a date in `Retry-After`, or huggingface.co's `RateLimit:
/// "api";r=0;t=240`.
fn wait(reply: &Reply) -> Option<Duration> {
    let header = |name| Some(reply.headers().get(name)?.to_str().ok()?.trim());
    let seconds = |text: &str| text.parse::<u32>().ok().map(|seconds| Duration::from_secs(seconds.into()));
    let date = |text: &str| {
        let until = httpdate::parse_http_date(text).ok()?;
        Some(until.duration_since(SystemTime::now()).unwrap_or_default() + Duration::from_secs(1))
    };
    let after = header("retry-after").and_then(|after| seconds(after).or_else(|| date(after)));
    after.or_else(|| header("ratelimit")?.split(';').find_map(|part| seconds(part.trim().strip_prefix("t=")?)))
}

/// A length of time as people say it.
fn in_words(time: Duration) -> String {
    let count = |count: u64, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    match time.as_secs() {
        seconds @ 0..=119 => count(seconds, "second"),
        seconds @ 120..=7199 => count(seconds.div_ceil(60), "minute"),
        seconds => count(seconds.div_ceil(3600), "hour"),
    }
}

fn refusal(error: &ureq::Error) -> Refusal {
    match error {
        ureq::Error::Timeout(_) => Refusal::Final(nothing_came()),
        ureq::Error::HostNotFound => {
            Refusal::Final("cannot be fetched: the hub cannot be reached (its name is not known here)".to_owned())
        }
        ureq::Error::ConnectionFailed => Refusal::Final("cannot be fetched: the hub cannot be reached".to_owned()),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Refusal::Final("cannot be fetched: the hub cannot be reached (nobody listens there)".to_owned())
        }
        ureq::Error::Io(_) => Refusal::Broken("the connection broke".to_owned()),
        ureq::Error::Protocol(_) | ureq::Error::Http(_) => Refusal::Final(
            "cannot be fetched: HF_ENDPOINT does not answer like a hub (it does not speak HTTP)".to_owned(),
        ),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) => Refusal::Final(
            "cannot be fetched: no secure connection to the hub (its certificate, or a proxy between)".to_owned(),
        ),
        _ => Refusal::Broken("the connection broke".to_owned()),
    }
}

/// The refusal for an error while contents come.
pub(super) fn broken_off(error: &std::io::Error) -> Refusal {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    if matches!(inner, Some(ureq::Error::Timeout(_))) || error.kind() == std::io::ErrorKind::TimedOut {
        return Refusal::Final(nothing_came());
    }
    Refusal::Broken("the connection broke".to_owned())
}

fn nothing_came() -> String {
    let seconds = patience();
    format!("cannot be fetched: the hub has sent nothing for {seconds} s; run it again, it goes on where it stopped")
}

/// The retries that are left. They are counted anew when bytes have come.
pub(super) struct Patience {
    left: std::slice::Iter<'static, Duration>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { left: RETRIES.iter() }
    }

    /// Waits before the next try; false if no try is left.
    pub(super) fn try_again(&mut self) -> bool {
        self.left.next().map(|wait| std::thread::sleep(*wait)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_wait_are_read_in_all_their_forms() {
        let reply = |name: &'static str, value: &str| {
            Response::builder().header(name, value).body(ureq::Body::builder().data("")).unwrap()
        };
        assert_eq!(wait(&reply("Retry-After", "7")), Some(Duration::from_secs(7)));
        assert_eq!(wait(&reply("RateLimit", "\"api\";r=0;t=240")), Some(Duration::from_secs(240)));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90));
        let found = wait(&reply("Retry-After", &date)).unwrap().as_secs();
        assert!((88..=91).contains(&found), "{found}");
        assert_eq!(wait(&reply("Retry-After", "soon")), None);
        for (seconds, words) in [(1, "1 second"), (90, "90 seconds"), (3600, "60 minutes"), (9000, "3 hours")] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }
}
