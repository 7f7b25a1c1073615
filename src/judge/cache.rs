//! The file of a judge's replies, one JSON object a line.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Error;

/// The replies by the hash of their requests.
pub(super) struct Cache {
    path: PathBuf,
    replies: HashMap<String, Reply>,
    /// Whether the file ends in the middle of a line.
    cut: bool,
    /// The file for new replies, opened at the first one.
    file: Option<File>,
}

/// A judge's reply.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Reply {
    #[serde(rename = "reply")]
    pub(super) text: String,
    /// The model that the server names, perhaps with a version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) model: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    /// The SHA-256 of the address and the request.
    request: String,
    #[serde(flatten)]
    reply: Reply,
}

impl Cache {
    /// Reads the replies of a file. A line that is not whole, because its writer was killed, is skipped, and its
    /// request is sent again.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Error::io(path, "the judge's replies cannot be read")(error)),
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let replies = lines.map(|line| (line.request, line.reply)).collect();
        let cut = !text.is_empty() && !text.ends_with('\n');
        Ok(Self { path: path.to_owned(), replies, cut, file: None })
    }

    pub(super) fn get(&self, url: &str, body: &str) -> Option<&Reply> {
        self.replies.get(&key(url, body))
    }

    pub(super) fn add(&mut self, url: &str, body: &str, reply: &Reply) -> Result<(), Error> {
        let line = Line { request: key(url, body), reply: reply.clone() };
        let text = serde_json::to_string(&line).map_err(|e| Error::data(&self.path, e.to_string()))?;
        let first = if std::mem::take(&mut self.cut) { "\n" } else { "" };
        let text = format!("{first}{text}\n");
        let fail = || Error::io(&self.path, "a reply of the judge cannot be written");
        let mut file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path).map_err(fail())?,
        };
        file.write_all(text.as_bytes()).map_err(fail())?;
        self.file = Some(file);
        self.replies.insert(line.request, line.reply);
        Ok(())
    }
}

fn key(url: &str, body: &str) -> String {
    format!("{:x}", Sha256::digest(format!("{url}\n{body}")))
}
