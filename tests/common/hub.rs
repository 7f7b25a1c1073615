//! A hub on this machine: it speaks the paths of huggingface.co, and fails, lies and redirects as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::json;
use sha2::{Digest, Sha256};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What goes wrong with the next download of a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Nothing.
    None,
    /// Another status.
    Status(u16),
    /// The same where only what is known of the file is asked for.
    Probe(u16),
    /// The connection ends after so many bytes.
    Cut(usize),
    /// The last byte is another one.
    Flip,
    /// It ends early, and says that this is all.
    Short(usize),
    /// It starts from the beginning, whatever was asked for.
    IgnoreRange,
}

#[derive(Default)]
struct State {
    /// By path: `owner/name/file`, or `datasets/owner/name/file`.
    files: BTreeMap<String, Vec<u8>>,
    faults: BTreeMap<String, VecDeque<Fault>>,
    /// Every request line with its range.
    requests: Vec<String>,
    token: Option<String>,
    /// How long the contents of a file take.
    slow: BTreeMap<String, Duration>,
    /// The paths that were asked for with an Authorization header.
    signed: Vec<String>,
    /// Another hub that every request, or every one for weights, is redirected to, and the status.
    redirect: Option<(u16, String, bool)>,
    /// The rest of the time in which every request is answered with 429, and its `Retry-After`.
    limited: Option<(Instant, String)>,
    /// The text that takes the place of a file's checksum in the header.
    etag: Option<String>,
    /// The text that takes the place of the commit in headers, and in the list of files.
    commit: Option<String>,
    /// A name that the list of files has besides.
    listed: Option<String>,
}

/// A running server; it lives as long as the process.
pub struct Hub {
    state: Arc<Mutex<State>>,
    pub endpoint: String,
}

impl Hub {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || answer(stream, &state));
            }
        });
        Self { state, endpoint }
    }

    pub fn add(&self, repo: &str, file: &str, bytes: Vec<u8>) {
        self.state.lock().unwrap().files.insert(format!("{repo}/{file}"), bytes);
    }

    /// Adds every file of a folder.
    pub fn add_folder(&self, repo: &str, folder: &std::path::Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_file() {
                self.add(repo, &name, std::fs::read(&path).unwrap());
            }
        }
    }

    /// Faults of the next downloads of a file, one each.
    pub fn fail(&self, path: &str, faults: &[Fault]) {
        self.state.lock().unwrap().faults.entry(path.to_owned()).or_default().extend(faults);
    }

    /// Makes the downloads of a file take as long.
    pub fn slow(&self, path: &str, duration: Duration) {
        self.state.lock().unwrap().slow.insert(path.to_owned(), duration);
    }

    pub fn want_token(&self, token: &str) {
        self.state.lock().unwrap().token = Some(token.to_owned());
    }

    /// The paths that were asked for with an Authorization header.
    pub fn signed(&self) -> Vec<String> {
        self.state.lock().unwrap().signed.clone()
    }

    /// Redirects every request to `other`, or those for weights and data only.
    pub fn redirect(&self, status: u16, other: &Self, weights_only: bool) {
        // Another host, for whoever compares names.
        let elsewhere = other.endpoint.replace("127.0.0.1", "localhost");
        self.state.lock().unwrap().redirect = Some((status, elsewhere, weights_only));
    }

    /// Answers everybody with 429 for so long, with this `Retry-After`.
    pub fn limit(&self, time: Duration, retry_after: &str) {
        self.state.lock().unwrap().limited = Some((Instant::now() + time, retry_after.to_owned()));
    }

    /// Lies about checksums, commits or names.
    pub fn lie(&self, etag: Option<&str>, commit: Option<&str>, listed: Option<&str>) {
        let mut state = self.state.lock().unwrap();
        (state.etag, state.commit, state.listed) =
            (etag.map(Into::into), commit.map(Into::into), listed.map(Into::into));
    }

    /// The requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

fn answer(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let (mut line, mut range, mut authorisation) = (String::new(), None, String::new());
    if reader.read_line(&mut line).is_err() {
        return;
    }
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap();
        match name.to_lowercase().as_str() {
            "range" => range = Some(value.trim().trim_start_matches("bytes=").to_owned()),
            "authorization" => value.trim().clone_into(&mut authorisation),
            _ => {}
        }
    }
    let path = line.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let reply = reply(&path, range.as_deref(), &authorisation, &mut state.lock().unwrap());
    let (head, body) = reply;
    let slow = state.lock().unwrap().slow.get(&path.replace("/resolve/main/", "/")).copied();
    std::thread::sleep(slow.filter(|_| range.as_deref() != Some("0-0")).unwrap_or_default());
    let _ = stream.write_all(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n").as_bytes());
    let _ = stream.write_all(&body);
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Status line with headers, and the body.
fn reply(path: &str, range: Option<&str>, authorisation: &str, state: &mut State) -> (String, Vec<u8>) {
    state.requests.push(format!("{path} {}", range.unwrap_or("-")));
    if !authorisation.is_empty() {
        state.signed.push(path.to_owned());
    }
    if let Some((until, after)) = &state.limited
        && Instant::now() < *until
    {
        return (format!("429 Too Many Requests\r\nRetry-After: {after}\r\nContent-Length: 0"), Vec::new());
    }
    let heavy = [".safetensors", ".bin", ".parquet"].iter().any(|end| path.ends_with(end));
    if let Some((status, other, weights_only)) = &state.redirect
        && (heavy || !weights_only)
    {
        let known = state.files.get(&path.replace("/resolve/main/", "/")).filter(|_| *weights_only);
        let linked = known.map_or_else(String::new, |bytes| {
            format!("\r\nX-Repo-Commit: {COMMIT}\r\nETag: \"of the redirect\"\r\nX-Linked-ETag: \"{}\"", sha256(bytes))
        });
        return (format!("{status} Moved\r\nLocation: {other}/{path}{linked}\r\nContent-Length: 0"), Vec::new());
    }
    let commit = state.commit.clone().unwrap_or_else(|| COMMIT.to_owned());
    let plain = |status: &str| (format!("{status}\r\nContent-Length: 0"), Vec::new());
    if state.token.as_ref().is_some_and(|token| authorisation != format!("Bearer {token}")) {
        return plain("401 Unauthorized");
    }
    if let Some(repo) = path.strip_prefix("api/").and_then(|path| path.strip_suffix("/revision/main")) {
        let repo = repo.trim_start_matches("models/");
        let names = state.files.keys().filter_map(|name| name.strip_prefix(&format!("{repo}/")));
        let names = names.chain(state.listed.as_deref());
        let siblings: Vec<_> = names.map(|name| json!({ "rfilename": name })).collect();
        if siblings.is_empty() {
            return plain("404 Not Found");
        }
        let body = json!({ "sha": commit, "siblings": siblings }).to_string().into_bytes();
        return (format!("200 OK\r\nContent-Length: {}", body.len()), body);
    }
    let path = path.replace("/resolve/main/", "/");
    let Some(bytes) = state.files.get(&path).cloned() else { return plain("404 Not Found") };
    let etag = state.etag.clone().unwrap_or_else(|| sha256(&bytes));
    let (from, to) = range.and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let mut from: usize = from.parse().unwrap();
    let to = to.parse().map_or(bytes.len(), |to: usize| (to + 1).min(bytes.len()));
    let probe = range == Some("0-0");
    let is_next = |fault: &Fault| matches!(fault, Fault::Probe(_)) == probe;
    let faults = state.faults.entry(path).or_default();
    let fault = if faults.front().is_some_and(is_next) { faults.pop_front() } else { None };
    let fault = fault.unwrap_or(Fault::None);
    if let Fault::Status(status) | Fault::Probe(status) = fault {
        return plain(&format!("{status} Fault"));
    }
    if from >= bytes.len() {
        return plain("416 Range Not Satisfiable");
    }
    if fault == Fault::IgnoreRange {
        from = 0;
    }
    let mut body = bytes[from..to].to_vec();
    let mut announced = body.len();
    match fault {
        Fault::Cut(length) => body.truncate(length),
        Fault::Short(length) => {
            body.truncate(length);
            announced = body.len();
        }
        Fault::Flip => *body.last_mut().unwrap() ^= 1,
        _ => {}
    }
    let head = format!(
        "206 Partial Content\r\nContent-Length: {announced}\r\nContent-Range: bytes {from}-{}/{}\r\nETag: \
         \"{etag}\"\r\nX-Repo-Commit: {commit}",
        to - 1,
        bytes.len()
    );
    (head, body)
}
