//! The body of a request: its form, and bounds of size and time.

use axum::{
    body::{Body, to_bytes},
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::{
    api::ApiError,
    state::{MOST_BODY, State},
};

/// Refuses what is not sent as JSON. A page of another host cannot send JSON without asking first.
pub(super) fn check_form(headers: &HeaderMap) -> Result<(), ApiError> {
    let unsupported =
        |message| Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message));
    let form = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = form.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return unsupported("the request must be of the content type application/json");
    }
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return unsupported("the request must not be compressed");
    }
    Ok(())
}

/// The bytes of a body, within bounds of size and time.
pub(super) async fn read_body(state: &State, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
    let too_large = || {
        let message = format!("the body has more than {MOST_BODY} bytes, which are the most");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
    };
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > MOST_BODY) {
        return Err(too_large());
    }
    let kib = u32::try_from(length.unwrap_or(MOST_BODY).div_ceil(1 << 10)).unwrap_or(u32::MAX);
    let read = async {
        let _part = state.bodies.acquire_many(kib).await;
        to_bytes(body, MOST_BODY).await
    };
    match timeout(2 * state.settings().patience, read).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        // A body without a length that is too large, or a connection that broke: nobody reads the answer to that.
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body did not come in time; send it again"))
        }
    }
}

/// Reads a body to its end, or for as long as a client has, and throws it away: a client that still writes would not read why it is refused.
pub(super) async fn drain(state: &State, body: Body) {
    let read = async {
        let mut chunks = body.into_data_stream();
        let mut left = MOST_BODY;
        while let Some(Ok(chunk)) = chunks.next().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    let _ = timeout(state.settings().patience, read).await;
}
