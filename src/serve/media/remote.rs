//! Images on the web, from public addresses only.

use std::{fmt, net::IpAddr, time::Duration};

use axum::http::StatusCode;
use ureq::{
    Agent, Error as Failure,
    config::Config,
    http::Uri,
    unversioned::{
        resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver},
        transport::{DefaultConnector, NextTimeout},
    },
};

use super::address::is_public;
use crate::serve::api::ApiError;

/// The most redirects that are followed.
const MOST_REDIRECTS: u32 = 3;
/// The time for the whole of a fetch.
const TIME: Duration = Duration::from_secs(30);
/// The largest file.
const MOST_BYTES: u64 = 64 << 20;

/// Fetches images.
#[derive(Debug)]
pub(super) struct Remote {
    agent: Agent,
}

/// Resolves names to addresses that are permitted. Every connection asks it, those after a redirect too, and connects to what it was told: a name
/// that answers otherwise the second time gains nothing.
#[derive(Debug)]
struct Permitted {
    resolver: DefaultResolver,
    is_permitted: fn(IpAddr) -> bool,
}

/// The failure for an address that is not permitted.
#[derive(Debug)]
struct Private;

impl fmt::Display for Private {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("not a public address")
    }
}

impl std::error::Error for Private {}

impl Resolver for Permitted {
    fn resolve(&self, uri: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, Failure> {
        let found = self.resolver.resolve(uri, config, timeout)?;
        if found.iter().all(|address| (self.is_permitted)(address.ip())) {
            Ok(found)
        } else {
            Err(Failure::Other(Box::new(Private)))
        }
    }
}

impl Remote {
    pub(super) fn new() -> Self {
        Self::permitting(is_public, TIME)
    }

    fn permitting(is_permitted: fn(IpAddr) -> bool, time: Duration) -> Self {
        let config = Agent::config_builder()
            // A proxy would resolve names itself.
            .proxy(None)
            .max_redirects(MOST_REDIRECTS)
            .timeout_global(Some(time))
            // A host may have closed a connection that is kept, and images of one request are seldom on one host.
            .max_idle_connections(0)
            .build();
        let resolver = Permitted { resolver: DefaultResolver::default(), is_permitted };
        Self { agent: Agent::with_parts(config, DefaultConnector::default(), resolver) }
    }

    /// The bytes at `url`.
    pub(super) fn fetch(&self, url: &str) -> Result<Vec<u8>, ApiError> {
        let read = || self.agent.get(url).call()?.body_mut().with_config().limit(MOST_BYTES).read_to_vec();
        read().map_err(|failure| refusal(&failure))
    }
}

/// The error of a fetch in words.
fn refusal(failure: &Failure) -> ApiError {
    let unreachable = |message: &str| ApiError::bad("", message);
    match failure {
        Failure::Other(other) if other.is::<Private>() => {
            unreachable("images are fetched from public addresses only, and this is none")
        }
        Failure::BodyExceedsLimit(_) => {
            let message = format!("the image has more than {MOST_BYTES} bytes");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", message)
        }
        Failure::StatusCode(status) => unreachable(&format!("the image's host answers with status {status}")),
        Failure::TooManyRedirects => {
            unreachable(&format!("the image's host redirects more than {MOST_REDIRECTS} times"))
        }
        Failure::Timeout(_) => unreachable("the image's host takes too long"),
        Failure::HostNotFound => unreachable("the image's host is not known"),
        Failure::BadUri(_) | Failure::Http(_) => unreachable("this is no address of the web"),
        _ => unreachable("the image cannot be fetched: the connection failed"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    /// A host on this machine that answers each connection with the reply for its path.
    fn host(reply: fn(&str, u16) -> Vec<u8>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = [0; 4096];
                let length = stream.read(&mut request).unwrap_or(0);
                let text = String::from_utf8_lossy(&request[..length]).into_owned();
                let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
                std::thread::spawn(move || {
                    let _ = stream.write_all(&reply(&path, port));
                    if path == "/slow" {
                        std::thread::sleep(Duration::from_secs(5));
                    }
                });
            }
        });
        port
    }

    fn replies(path: &str, port: u16) -> Vec<u8> {
        let redirect = |to: String| {
            format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        };
        match path {
            "/image" => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc".to_vec(),
            "/slow" => b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\na".to_vec(),
            "/large" => [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![0; MOST_BYTES as usize + 1]].concat(),
            "/inside" => redirect("http://169.254.169.254/latest/meta-data".to_owned()).into_bytes(),
            "/file" => redirect("file:///etc/passwd".to_owned()).into_bytes(),
            path => match path.trim_start_matches('/').parse::<u32>() {
                Ok(0) => redirect(format!("http://127.0.0.1:{port}/image")).into_bytes(),
                Ok(n) => redirect(format!("http://127.0.0.1:{port}/{}", n - 1)).into_bytes(),
                Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            },
        }
    }

    #[test]
    fn private_addresses_are_refused() {
        let port = host(replies);
        let remote = Remote::new();
        for url in [
            format!("http://127.0.0.1:{port}/image"),
            format!("http://localhost:{port}/image"),
            format!("http://0.0.0.0:{port}/image"),
            format!("http://[::1]:{port}/image"),
            format!("http://[::ffff:127.0.0.1]:{port}/image"),
            format!("http://2130706433:{port}/image"),
            format!("http://0x7f.1:{port}/image"),
            "http://169.254.169.254/latest/meta-data".to_owned(),
        ] {
            let message = remote.fetch(&url).unwrap_err().message;
            assert!(message.contains("public addresses only"), "{url}: {message}");
        }
    }

    #[test]
    fn redirects_sizes_and_times_have_limits() {
        let port = host(replies);
        // This machine stands for the internet here.
        let remote = Remote::permitting(|address| address.is_loopback(), Duration::from_secs(2));
        let fetch = |path: &str| remote.fetch(&format!("http://127.0.0.1:{port}{path}"));
        assert_eq!(fetch("/image").unwrap(), b"abc");
        assert_eq!(fetch("/2").unwrap(), b"abc");
        assert!(fetch("/3").unwrap_err().message.contains("redirects more than 3"));
        assert!(fetch("/inside").unwrap_err().message.contains("public addresses only"));
        assert!(fetch("/file").is_err());
        assert!(fetch("/none").unwrap_err().message.contains("status 404"));
        assert_eq!(fetch("/large").unwrap_err().status, StatusCode::PAYLOAD_TOO_LARGE);
        let began = Instant::now();
        assert!(fetch("/slow").unwrap_err().message.contains("too long"));
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}
