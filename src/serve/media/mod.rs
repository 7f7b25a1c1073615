//! The images of a request: in the request itself, on the web, or in a folder of the server.

mod address;
mod local;
mod remote;

use std::{path::Path, sync::Arc};

use axum::http::StatusCode;
use base64::{Engine, engine::general_purpose::STANDARD};
use remote::Remote;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::api::{ApiError, ImageSource};
use crate::{
    image::{decode_bytes_upright, size},
    video::Media,
};

/// Reads the images of requests, within a bound on the pixels of all requests together.
#[derive(Debug)]
pub(super) struct Images {
    remote: Option<Remote>,
    /// The folder below which `file:` addresses are read.
    folder: Option<std::path::PathBuf>,
    /// The bytes of pixels that requests may still have, in MiB.
    free: Arc<Semaphore>,
}

/// MiB of pixels of all requests that wait or are answered; the largest image that is decoded takes 512.
const MOST_MIB: u32 = 1024;

/// The images of a request, and their part of the bound, which is given back when they are dropped.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) media: Vec<Media>,
    pub(super) part: OwnedSemaphorePermit,
}

impl Images {
    pub(super) fn new(remote: bool, folder: Option<std::path::PathBuf>) -> Self {
        let remote = remote.then(Remote::new);
        Self { remote, folder, free: Arc::new(Semaphore::new(MOST_MIB as usize)) }
    }

    /// Reads the images of a request, upright as people see them, once there is room for their pixels.
    ///
    /// # Errors
    /// When one cannot be read, or they are too large together.
    pub(super) async fn open(self: &Arc<Self>, sources: Vec<ImageSource>) -> Result<Opened, ApiError> {
        let reader = self.clone();
        let fetch = move || -> Result<Vec<(String, Vec<u8>, u64)>, ApiError> {
            sources.into_iter().map(|source| reader.fetch(source)).collect()
        };
        let fetched = in_background(fetch).await?;
        let bytes: u64 = fetched.iter().map(|(_, _, bytes)| bytes).sum();
        let mib = u32::try_from(bytes.div_ceil(1 << 20)).unwrap_or(u32::MAX);
        if mib > MOST_MIB {
            let message = format!("the images of the request have {mib} MiB of pixels; {MOST_MIB} are the most");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "images_too_large", message).about("messages"));
        }
        let part = self.free.clone().acquire_many_owned(mib).await;
        let part = part.map_err(|_| ApiError::internal("the server is stopping"))?;
        let media = in_background(move || {
            let decode =
                |(param, bytes, _): (String, Vec<u8>, u64)| match decode_bytes_upright(Path::new(&param), &bytes) {
                    Ok((image, _)) => Ok(image.into()),
                    Err(error) => Err(ApiError::of(&error).about(param)),
                };
            fetched.into_iter().map(decode).collect::<Result<Vec<Media>, ApiError>>()
        });
        Ok(Opened { media: media.await?, part })
    }

    /// The field, the file's bytes, and the number of bytes of its pixels.
    fn fetch(&self, ImageSource { param, url }: ImageSource) -> Result<(String, Vec<u8>, u64), ApiError> {
        let bytes = match url.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
            Some("data") => data(&url),
            Some("http" | "https") => match &self.remote {
                Some(remote) => remote.fetch(&url),
                None => Err(ApiError::bad(
                    "",
                    "images are not fetched from the web here; send a data: URL, or start the server with --allow-remote-images",
                )),
            },
            Some("file") => match &self.folder {
                Some(folder) => local::read(folder, &url),
                None => Err(ApiError::bad(
                    "",
                    "files of the server are not read here; send a data: URL, or start the server with --media-path",
                )),
            },
            _ => Err(ApiError::bad("", "the address is neither a data: URL nor http(s): nor file:")),
        };
        let bytes = bytes
            .map_err(|error| ApiError { message: format!("{param}: {}", error.message), ..error }.about(&param))?;
        let [width, height] = size(Path::new(&param), &bytes).map_err(|error| ApiError::of(&error).about(&param))?;
        Ok((param, bytes, u64::from(width) * u64::from(height) * 3))
    }
}

/// Runs `work` beside the threads that answer connections.
pub(super) async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::internal("the request could not be read")))
}

/// The bytes of a `data:` URL.
fn data(url: &str) -> Result<Vec<u8>, ApiError> {
    let form = || ApiError::bad("", "a data: URL of an image is expected, as data:image/png;base64,…");
    let (head, body) = url.split_once(',').ok_or_else(form)?;
    if !head.to_ascii_lowercase().ends_with(";base64") {
        return Err(form());
    }
    // Some clients break lines.
    let body: Vec<u8> = body.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(body).map_err(|_| ApiError::bad("", "the data: URL is not in base64 to its end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_urls_are_read() {
        assert_eq!(data("data:image/png;base64,AAEC").unwrap(), [0, 1, 2]);
        assert_eq!(data("data:;BASE64,AA\nEC").unwrap(), [0, 1, 2]);
        for broken in ["data:image/png;base64", "data:image/png,AAEC", "data:image/png;base64,A", "data:x;base64,AA!C"]
        {
            assert!(data(broken).is_err(), "{broken}");
        }
    }
}
