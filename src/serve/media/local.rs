//! Images in a folder of the server.

use std::path::Path;

use axum::http::StatusCode;
use url::Url;

use crate::{files::check_regular, serve::api::ApiError};

/// The largest file that is read.
const MOST_BYTES: u64 = 256 << 20;

/// The bytes of the file at a `file:` URL, which must lie below `folder` when all links are resolved.
pub(super) fn read(folder: &Path, url: &str) -> Result<Vec<u8>, ApiError> {
    // One answer for all that is not there or may not be read: whether a file exists elsewhere is nobody's business.
    let absent =
        || ApiError::new(StatusCode::NOT_FOUND, "not_found", "there is no such image below the server's --media-path");
    let path = Url::parse(url).ok().and_then(|url| url.to_file_path().ok()).ok_or_else(absent)?;
    let (path, folder) = (path.canonicalize().map_err(|_| absent())?, folder.canonicalize().map_err(|_| absent())?);
    if !path.starts_with(&folder) || !path.is_file() || check_regular(&path, "").is_err() {
        return Err(absent());
    }
    let length = path.metadata().map_err(|_| absent())?.len();
    if length > MOST_BYTES {
        let message = format!("the file has {length} bytes; {MOST_BYTES} are the most");
        return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "image_too_large", message));
    }
    std::fs::read(path).map_err(|_| absent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let here = tempfile::tempdir().unwrap();
        let folder = here.path().join("media");
        std::fs::create_dir_all(folder.join("inner")).unwrap();
        std::fs::write(folder.join("inner/a b.png"), b"inside").unwrap();
        std::fs::write(here.path().join("secret"), b"outside").unwrap();
        std::fs::create_dir(here.path().join("media-2")).unwrap();
        std::fs::write(here.path().join("media-2/near"), b"outside").unwrap();
        let url = |path: &str| format!("file://{}/{path}", folder.display());
        assert_eq!(read(&folder, &url("inner/a%20b.png")).unwrap(), b"inside");
        assert_eq!(read(&folder, &url("inner/../inner/a%20b.png")).unwrap(), b"inside");
        let mut outside =
            vec![url("../secret"), url("%2e%2e/secret"), url("../media-2/near"), url("inner"), url("none"), url("")];
        outside.extend(["file:///etc/passwd", "file://host/x", "file:secret", "file:"].map(str::to_owned));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(here.path().join("secret"), folder.join("link")).unwrap();
            std::os::unix::fs::symlink(here.path(), folder.join("up")).unwrap();
            outside.extend([url("link"), url("up/secret")]);
        }
        for url in outside {
            assert_eq!(read(&folder, &url).unwrap_err().status, StatusCode::NOT_FOUND, "{url}");
        }
    }
}
