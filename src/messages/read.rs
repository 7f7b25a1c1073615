//! The file of messages as it is written.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use secateur_weights::parse_json;
use serde::Deserialize;

use crate::{Error, files::read_text};

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    System,
    User,
    Assistant,
}

/// A message.
pub(super) struct Message {
    pub(super) role: Role,
    pub(super) parts: Vec<Part>,
}

/// A part of a message.
pub(super) enum Part {
    Text(String),
    Image(Source),
    Video(VideoSource),
}

/// The place of an image.
pub(super) enum Source {
    Path(PathBuf),
    Bytes(Vec<u8>),
}

/// A video: a file or folder, or a list of frames.
pub(super) struct VideoSource {
    pub(super) paths: Vec<PathBuf>,
    pub(super) is_list: bool,
    /// Frames a second.
    pub(super) rate: Option<f64>,
}

#[derive(Deserialize)]
struct RawMessage {
    role: Role,
    content: RawContent,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a string, or a list of parts")]
enum RawContent {
    Text(String),
    Parts(Vec<RawPart>),
}

#[derive(Deserialize)]
struct RawPart {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    image: Option<String>,
    image_url: Option<RawUrl>,
    video: Option<RawVideo>,
    fps: Option<f64>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "an address, or an object with `url`")]
enum RawUrl {
    Plain(String),
    Object { url: String },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a path, or a list of the paths of frames")]
enum RawVideo {
    Path(PathBuf),
    Frames(Vec<PathBuf>),
}

/// Reads the messages in a file.
///
/// # Errors
/// When the file cannot be read, or has something else in it.
pub(super) fn messages(path: &Path) -> Result<Vec<Message>, Error> {
    let text = read_text(path, "the messages cannot be read")?;
    let raw: Vec<RawMessage> = parse_json(&text).map_err(|reason| Error::data(path, reason))?;
    let mut messages = Vec::with_capacity(raw.len());
    for (i, RawMessage { role, content }) in raw.into_iter().enumerate() {
        let parts = match content {
            RawContent::Text(text) => vec![Part::Text(text)],
            RawContent::Parts(parts) => {
                let parts = parts.into_iter().map(RawPart::check).collect::<Result<Vec<_>, _>>();
                parts.map_err(|reason| Error::data(path, format!("message {}: {reason}", i + 1)))?
            }
        };
        messages.push(Message { role, parts });
    }
    Ok(messages)
}

impl RawPart {
    fn check(self) -> Result<Part, String> {
        match self {
            Self { text: Some(text), image: None, image_url: None, video: None, .. } => Ok(Part::Text(text)),
            Self { image: Some(address), .. } => source(&address).map(Part::Image),
            Self { image_url: Some(RawUrl::Plain(address) | RawUrl::Object { url: address }), .. } => {
                source(&address).map(Part::Image)
            }
            Self { video: Some(video), fps, .. } => {
                if let Some(fps) = fps.filter(|fps| !(fps.is_finite() && *fps > 0.0)) {
                    return Err(format!("`fps` is {fps}; a number above 0 is expected"));
                }
                let (paths, is_list) = match video {
                    RawVideo::Path(path) => (vec![path], false),
                    RawVideo::Frames(paths) => (paths, true),
                };
                if paths.is_empty() {
                    return Err("`video` is an empty list; the paths of frames are expected".to_owned());
                }
                Ok(Part::Video(VideoSource { paths, is_list, rate: fps }))
            }
            Self { kind, .. } => {
                let kind = kind.as_deref().map_or_else(
                    || "no type".to_owned(),
                    |kind| format!("the type `{}`", secateur_weights::printable(kind)),
                );
                Err(format!("a part with {kind} has none of `text`, `image`, `image_url` and `video`"))
            }
        }
    }
}

/// An image's place: a path, a `file://` address or a `data:` URL.
fn source(address: &str) -> Result<Source, String> {
    if let Some(data) = address.strip_prefix("data:") {
        let bytes = data.split_once(";base64,").and_then(|(_, bytes)| STANDARD.decode(bytes.trim()).ok());
        return bytes.map(Source::Bytes).ok_or_else(|| "a `data:` URL holds no image in base64".to_owned());
    }
    if address.starts_with("http://") || address.starts_with("https://") {
        return Err(format!(
            "`{}`: images are read from files here; download it first",
            secateur_weights::printable(address)
        ));
    }
    Ok(Source::Path(PathBuf::from(address.strip_prefix("file://").unwrap_or(address))))
}
