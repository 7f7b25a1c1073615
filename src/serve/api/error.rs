//! Errors as a client gets them: `{"error": {"message", "type", "param", "code"}}` with a status.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::Error;

/// An error of a request.
#[derive(Clone, Debug)]
pub(in crate::serve) struct ApiError {
    pub(in crate::serve) status: StatusCode,
    /// The kind of error in one word, as clients of OpenAI read it.
    pub(in crate::serve) code: &'static str,
    /// The field that is to blame, as `messages[0].content[1].image_url`.
    pub(in crate::serve) param: Option<String>,
    pub(in crate::serve) message: String,
    /// Seconds after which the request may be sent again.
    pub(in crate::serve) retry_after: Option<u64>,
}

impl ApiError {
    pub(in crate::serve) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, param: None, message: message.into(), retry_after: None }
    }

    /// A request whose `param` is wrong.
    pub(in crate::serve) fn bad(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_value", message).about(param)
    }

    /// The error with the field that is to blame.
    pub(in crate::serve) fn about(self, param: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// The error with the seconds after which the request may be sent again.
    pub(in crate::serve) fn retry_after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }

    /// An error of the engine or of an image, in the words that clients expect.
    pub(in crate::serve) fn of(error: &Error) -> Self {
        let message = error.to_string();
        match error {
            Error::TooLong { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message).about("messages")
            }
            Error::Image { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_image", message),
            Error::Budget { .. } => Self::bad("secateur.visual_tokens", message),
            Error::ImagePlaceholders { .. } | Error::VideoPlaceholders { .. } => Self::bad("messages", message),
            Error::NoClipText | Error::MissingCue { .. } | Error::Layer { .. } => Self::bad("secateur.method", message),
            Error::NoText => Self::bad("messages", message),
            Error::Cancelled => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "stopped", "the server stopped before the answer's end")
            }
            _ => Self::internal(message),
        }
    }

    /// An error that is no fault of the client.
    pub(in crate::serve) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// The error's type, in OpenAI's words.
    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The JSON of the error.
    pub(in crate::serve) fn body(&self) -> Value {
        json!({ "error": {
            "message": self.message, "type": self.kind(), "param": self.param, "code": self.code,
        }})
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
