//! One repository on the hub: what it has, and its files.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::Path,
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use ureq::http::header;

use super::{
    Kind,
    cache::{cache, is_checksum, is_plain_name},
    http::{Http, Patience, Refusal, Reply, broken_off},
};
use crate::text::impostor;

/// Bytes that must come before a broken connection is worth another round of retries: a hub that cuts after every byte
/// would be tried for ever.
const PROGRESS: u64 = 64 << 10;

/// The longest list of files that is read.
const LONGEST_LIST: u64 = 64 << 20;

/// A client for one repository.
pub(super) struct Client {
    http: Http,
    kind: Kind,
    id: String,
}

/// The commit and the files of a repository.
pub(super) struct Listing {
    /// The newest commit.
    pub(super) commit: String,
    /// The names of the files.
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
struct RawListing {
    sha: String,
    siblings: Vec<RawFile>,
}

#[derive(Deserialize)]
struct RawFile {
    rfilename: String,
}

/// The metadata of a file, known before it is downloaded.
pub(super) struct Metadata {
    /// The commit that the file belongs to.
    pub(super) commit: String,
    /// The checksum of the file: SHA-256 for large files, Git's SHA-1 for small ones.
    pub(super) etag: String,
}

/// The reason why a file was not downloaded.
pub(super) enum Failure {
    /// The part that is there cannot be continued.
    StalePart,
    /// A sentence for people.
    Sentence(String),
}

impl From<String> for Failure {
    fn from(sentence: String) -> Self {
        Self::Sentence(sentence)
    }
}

impl Client {
    /// # Errors
    /// When `HF_ENDPOINT` is no address.
    pub(super) fn new(kind: Kind, id: &str) -> Result<Self, String> {
        Ok(Self { http: Http::new()?, kind, id: id.to_owned() })
    }

    /// The hub's address, for people.
    pub(super) fn endpoint(&self) -> &str {
        self.http.endpoint()
    }

    /// Fetches the newest commit and the list of files.
    pub(super) fn listing(&self) -> Result<Listing, String> {
        let address = self.http.address(&["api", self.kind.plural(), &self.id, "revision", "main"]);
        let text = self.again(|| {
            let mut reply = self.http.get(address.clone(), None, |_| false)?;
            reply.body_mut().with_config().limit(LONGEST_LIST).read_to_string().map_err(|error| match error {
                ureq::Error::Io(error) => broken_off(&error),
                _ => Refusal::Final(self.no_hub("its list of files is no text")),
            })
        })?;
        if impostor(text.as_bytes()).is_some() {
            return Err(self.no_hub(
                "it sends a web page in place of its list of files, as a network does that wants a login first",
            ));
        }
        let raw: RawListing =
            serde_json::from_str(&text).map_err(|_| self.no_hub("its list of files cannot be read"))?;
        if !is_checksum(&raw.sha, &[40]) {
            return Err(self.no_hub("the commit of its list of files is no checksum"));
        }
        Ok(Listing { commit: raw.sha, names: raw.siblings.into_iter().map(|file| file.rfilename).collect() })
    }

    /// Fetches the metadata of a file.
    pub(super) fn metadata(&self, name: &str) -> Result<Metadata, String> {
        let address = self.file(name)?;
        // The hub's own redirect to the contents has their commit and checksum.
        let tells = |reply: &Reply| reply.headers().contains_key("x-repo-commit") && etag(reply).is_some();
        let reply = self.again(|| self.http.get(address.clone(), Some("bytes=0-0".to_owned()), tells))?;
        let commit = reply.headers().get("x-repo-commit").and_then(|commit| commit.to_str().ok()).unwrap_or_default();
        if !is_checksum(commit, &[40]) {
            return Err(self.no_hub("X-Repo-Commit of a file is no commit"));
        }
        match etag(&reply) {
            Some(etag) if is_checksum(&etag, &[40, 64]) => {
                Ok(Metadata { commit: commit.to_owned(), etag: etag.to_ascii_lowercase() })
            }
            _ => Err(self.no_hub("a file has no checksum (ETag), so that nobody could tell whether it came whole")),
        }
    }

    /// Downloads a file, or the rest of it, to `part`.
    pub(super) fn download(&self, name: &str, part: &Path) -> Result<(), Failure> {
        let address = self.file(name)?;
        let mut file = OpenOptions::new().create(true).append(true).open(part).map_err(in_cache)?;
        let length = |file: &File| file.metadata().map_or(0, |file| file.len());
        let bar = bar(name);
        let (mut patience, mut before) = (Patience::new(), length(&file));
        loop {
            let refusal = match self.receive(address.clone(), &mut file, &bar) {
                Ok(()) => {
                    bar.finish_and_clear();
                    return Ok(());
                }
                Err(refusal) => refusal?,
            };
            let now = length(&file);
            if now >= before.saturating_add(PROGRESS) {
                (patience, before) = (Patience::new(), now);
            }
            if let Some(sentence) = self.give_up(refusal, &mut patience) {
                return Err(Failure::Sentence(sentence));
            }
        }
    }

    /// Appends to `file` the rest of its contents.
    fn receive(&self, address: url::Url, file: &mut File, bar: &ProgressBar) -> Result<(), Result<Refusal, Failure>> {
        let disk = |error| Err(Failure::Sentence(in_cache(error)));
        let there = file.metadata().map_err(disk)?.len();
        let range = (there > 0).then(|| format!("bytes={there}-"));
        let reply = match self.http.get(address, range, |_| false) {
            Err(Refusal::Status(416)) => return Err(Err(Failure::StalePart)),
            reply => reply.map_err(Ok)?,
        };
        if there > 0 && begins_at(&reply) != there {
            // The hub sends the file from its start, whatever was asked for.
            file.set_len(0).and_then(|()| file.rewind()).map_err(disk)?;
        }
        let announced =
            reply.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let begun = file.metadata().map_err(disk)?.len();
        bar.set_length(announced.unwrap_or(0) + begun);
        bar.set_position(begun);
        let mut body = reply.into_body().into_with_config().limit(u64::MAX).reader();
        let (mut buffer, mut came) = (vec![0; 1 << 18], 0);
        loop {
            let read = match body.read(&mut buffer) {
                Ok(0) if announced.is_some_and(|announced: u64| came < announced) => {
                    return Err(Ok(Refusal::Broken("the connection broke".to_owned())));
                }
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ok(broken_off(&error))),
            };
            file.write_all(&buffer[..read]).map_err(disk)?;
            came += read as u64;
            bar.inc(read as u64);
        }
    }

    /// Repeats a request as long as that may help.
    fn again<T>(&self, ask: impl Fn() -> Result<T, Refusal>) -> Result<T, String> {
        let mut patience = Patience::new();
        loop {
            match ask() {
                Ok(found) => return Ok(found),
                Err(refusal) => match self.give_up(refusal, &mut patience) {
                    Some(sentence) => return Err(sentence),
                    None => continue,
                },
            }
        }
    }

    /// Waits for the next try, or says why there is none.
    fn give_up(&self, refusal: Refusal, patience: &mut Patience) -> Option<String> {
        match refusal {
            Refusal::TooSoon(wait) => self.http.wait(wait).err(),
            Refusal::Final(sentence) => Some(sentence),
            Refusal::Status(status) if !(status == 429 || status >= 500) => Some(answered(status)),
            Refusal::Status(status) => (!patience.try_again()).then(|| answered(status)),
            Refusal::Broken(why) => (!patience.try_again()).then(|| {
                format!("cannot be fetched: {why}, again and again; run it again, it goes on where it stopped")
            }),
        }
    }

    /// The address of a file.
    fn file(&self, name: &str) -> Result<url::Url, String> {
        if !is_plain_name(name) {
            return Err(self.no_hub(&format!("it names a file {name:?}, which would lie outside of its folder")));
        }
        let prefix = match self.kind {
            Kind::Model => self.id.clone(),
            Kind::DataSet => format!("datasets/{}", self.id),
        };
        Ok(self.http.address(&[&prefix, "resolve", "main", name]))
    }

    fn no_hub(&self, why: &str) -> String {
        format!("cannot be fetched: {} does not answer like a hub ({why}); HF_ENDPOINT names the hub", self.endpoint())
    }
}

/// The checksum in a reply; if the reply redirects to the contents, the checksum of these.
fn etag(reply: &Reply) -> Option<String> {
    let header = |name| reply.headers().get(name).and_then(|etag| etag.to_str().ok());
    let etag = header("x-linked-etag").or_else(|| header("etag"))?;
    Some(etag.trim().trim_start_matches("W/").trim_matches('"').to_owned())
}

/// The position of the reply's first byte in the file.
fn begins_at(reply: &Reply) -> u64 {
    let range = reply.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()).unwrap_or(0)
}

/// A progress bar for people.
fn bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:32} {bytes}/{total_bytes} · {bytes_per_sec} · {eta} left");
    let bar = ProgressBar::new(0).with_message(name.to_owned());
    style.map_or(bar.clone(), |style| bar.with_style(style))
}

/// The sentence about an error in the cache.
pub(super) fn in_cache(error: io::Error) -> String {
    let folder = cache();
    let variable = if std::env::var_os("HF_HUB_CACHE").is_some() { "HF_HUB_CACHE" } else { "HF_HOME" };
    format!(
        "the cache {} cannot be read or written ({}): make room there, or set {variable} to another folder",
        folder.display(),
        crate::text::system_words(&error)
    )
}

/// The sentence about a status of the hub.
fn answered(status: u16) -> String {
    match status {
        // The hub does not tell strangers which of the two it is.
        401 | 404 => {
            "is not on the hub, or not open to everyone: check the id, or set HF_TOKEN to a token that may read it".to_owned()
        }
        403 => {
            "is not open to this HF_TOKEN, or not without one: accept its terms on its page, with the account that the token \
             belongs to"
                .to_owned()
        }
        429 => {
            "cannot be fetched: the hub has had too many requests (status 429); come again in some minutes, a token in \
             HF_TOKEN raises the limit"
                .to_owned()
        }
        status => format!("cannot be fetched: the hub answered with status {status}; try again later"),
    }
}
