//! A hub on this machine: it speaks the paths that `hf-hub` asks for, and fails as it is told.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
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

/// Status line with headers, and the body.
fn reply(path: &str, range: Option<&str>, authorisation: &str, state: &mut State) -> (String, Vec<u8>) {
    state.requests.push(format!("{path} {}", range.unwrap_or("-")));
    let plain = |status: &str| (format!("{status}\r\nContent-Length: 0"), Vec::new());
    if state.token.as_ref().is_some_and(|token| authorisation != format!("Bearer {token}")) {
        return plain("401 Unauthorized");
    }
    if let Some(repo) = path.strip_prefix("api/").and_then(|path| path.strip_suffix("/revision/main")) {
        let repo = repo.trim_start_matches("models/");
        let names = state.files.keys().filter_map(|name| name.strip_prefix(&format!("{repo}/")));
        let siblings: Vec<_> = names.map(|name| json!({ "rfilename": name })).collect();
        if siblings.is_empty() {
            return plain("404 Not Found");
        }
        let body = json!({ "sha": COMMIT, "siblings": siblings }).to_string().into_bytes();
        return (format!("200 OK\r\nContent-Length: {}", body.len()), body);
    }
    let path = path.replace("/resolve/main/", "/");
    let Some(bytes) = state.files.get(&path).cloned() else { return plain("404 Not Found") };
    let etag: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
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
         \"{etag}\"\r\nX-Repo-Commit: {COMMIT}",
        to - 1,
        bytes.len()
    );
    (head, body)
}
