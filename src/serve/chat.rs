//! `POST /v1/chat/completions`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::{Body, to_bytes},
    extract::State as Shared,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use tokio_stream::StreamExt;

use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::{
    api::{ApiError, ChatRequest, Choice, Completion, Conversation, ImageSource, Logprobs, Message, UserTurn},
    media::in_background,
    state::{MOST_BODY, State, now},
    stream::{Streamed, stream},
    worker::{Asked, Job, Outcome, Update},
};
use crate::{
    engine::{Cancel, SharedMedia},
    text::Turn,
};

/// Time for the first news of a request that streams; an error that comes later is sent inside the stream.
const FIRST_NEWS: Duration = Duration::from_secs(5);

/// A request that the model has, and what its answer says of it.
pub(super) struct Open {
    pub(super) id: String,
    pub(super) model: String,
    pub(super) created: u64,
    pub(super) updates: UnboundedReceiver<Update>,
    pub(super) ended: Ended,
}

/// Cancels a request when it is dropped, which costs nothing once it has ended; counts it and writes its line.
pub(super) struct Ended {
    state: Arc<State>,
    cancel: Cancel,
    arrived: Instant,
    first: Option<Duration>,
    /// The status of the answer, and what is said of it.
    outcome: Option<(StatusCode, String)>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.cancel.cancel();
        // 499 is what proxies write for a client that went away.
        let gone = (499, "the client went away".to_owned());
        let (status, words) = self.outcome.take().map_or(gone, |(status, words)| (status.as_u16(), words));
        self.state.metrics.answered(status);
        let seconds = self.arrived.elapsed().as_secs_f64();
        (self.state.settings().log)(&format!("{status} in {seconds:.2} s: {words}"));
    }
}

impl Ended {
    fn new(state: Arc<State>, cancel: Cancel, arrived: Instant) -> Self {
        Self { state, cancel, arrived, first: None, outcome: None }
    }

    /// Notes that a token has come.
    pub(super) fn token(&mut self) {
        if self.first.is_none() {
            let time = self.arrived.elapsed();
            self.first = Some(time);
            self.state.metrics.first_token.observe(time.as_secs_f64());
        }
    }

    /// Notes the answer's end.
    pub(super) fn end(&mut self, outcome: &Outcome) {
        let Outcome { usage, timings, pruned, .. } = outcome;
        self.state.metrics.used(usage, Duration::from_secs_f64(timings.decode / 1e3));
        let words = format!(
            "{}, {} of {} visual tokens, {} tokens in, {} out",
            pruned.method,
            pruned.visual_tokens,
            pruned.visual_tokens_before,
            usage.prompt_tokens,
            usage.completion_tokens,
        );
        self.outcome = Some((StatusCode::OK, words));
    }

    /// Notes an error.
    pub(super) fn fail(&mut self, error: &ApiError) {
        self.outcome = Some((error.status, error.message.clone()));
    }
}

/// Answers a request for a completion.
pub(super) async fn completions(Shared(state): Shared<Arc<State>>, headers: HeaderMap, body: Body) -> Response {
    let cancel = Cancel::default();
    let mut ended = Ended::new(state.clone(), cancel.clone(), Instant::now());
    match begin(&state, cancel, ended.arrived, &headers, body).await {
        Ok((updates, model, streamed)) => {
            let id = format!("chatcmpl-{:x}-{}", state.began, state.number());
            let open = Open { id, model, created: now(), updates, ended };
            match streamed {
                Some(streamed) => streamed_answer(open, streamed).await,
                None => whole(open).await,
            }
        }
        Err(error) => {
            ended.fail(&error);
            error.into_response()
        }
    }
}

/// Reads a request and hands it to the model. Returns its news, the model's name, and how it streams, if it does.
async fn begin(
    state: &Arc<State>,
    cancel: Cancel,
    arrived: Instant,
    headers: &HeaderMap,
    body: Body,
) -> Result<(UnboundedReceiver<Update>, String, Option<Streamed>), ApiError> {
    // Read first: a client that still writes would not read why it is refused.
    let body = read_body(state, headers, body).await?;
    check_form(headers)?;
    let served = state.served()?;
    let request = in_background(move || ChatRequest::read(&body)).await?;
    let model = model_name(state, request.model.as_deref())?;
    let settings = state.settings();
    let decoding = request.decoding(settings.decoding, settings.seed)?;
    let pruning = served.offer.pruning(&request)?;
    let (stops, alternatives) = (request.stops()?, request.alternatives()?);
    let streamed = request.streams().then(|| Streamed { usage: request.streams_usage() });
    let draw = if request.has_seed() { 0 } else { state.number() as u64 };
    // A request beyond the queue is refused before its images are decoded.
    let ticket = state.ticket()?;
    let Conversation { system, turns } = Conversation::new(request.messages)?;
    let (turns, sources): (Vec<_>, Vec<_>) = turns.into_iter().map(taken_apart).unzip();
    let opened = state.images.open(sources.into_iter().flatten().collect()).await?;
    let media = opened.media.into_iter().map(SharedMedia::new).collect();
    let asked = Asked { system, turns, media, pruning, decoding, draw, stops, alternatives };
    let (sender, updates) = unbounded_channel();
    state.submit(Job { asked, updates: sender, cancel, arrived, ticket, part: opened.part })?;
    Ok((updates, model, streamed))
}

fn taken_apart(turn: UserTurn) -> ((Turn, usize), Vec<ImageSource>) {
    let UserTurn { text, images, answer } = turn;
    ((Turn { user: text, answer }, images.len()), images)
}

/// Refuses what is not sent as JSON. A page of another host cannot send JSON without asking first.
fn check_form(headers: &HeaderMap) -> Result<(), ApiError> {
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
async fn read_body(state: &State, headers: &HeaderMap, body: Body) -> Result<Vec<u8>, ApiError> {
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

/// The name of the model in the answer.
fn model_name(state: &State, asked: Option<&str>) -> Result<String, ApiError> {
    let names = &state.settings().names;
    match asked.filter(|name| !name.is_empty()) {
        None => Ok(names.first().cloned().unwrap_or_default()),
        Some(name) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
        Some(name) => {
            let message =
                format!("the model `{}` is not served here; {} is", crate::words::excerpt(name), names.join(", "));
            Err(ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model"))
        }
    }
}

/// The answer as a whole.
async fn whole(mut open: Open) -> Response {
    let (mut content, mut logprobs) = (String::new(), Logprobs::default());
    let mut has_logprobs = false;
    while let Some(update) = open.updates.recv().await {
        match update {
            Update::Token { text, logprob } => {
                open.ended.token();
                content += &text;
                has_logprobs |= logprob.is_some();
                logprobs.content.extend(logprob);
            }
            Update::Ended(Err(error)) => {
                open.ended.fail(&error);
                return error.into_response();
            }
            Update::Ended(Ok(outcome)) => {
                open.ended.end(&outcome);
                let Outcome { text, finish, usage, timings, pruned } = *outcome;
                let message = Message { role: "assistant", content: content + &text };
                let logprobs = has_logprobs.then_some(logprobs);
                let choice = Choice { index: 0, message, logprobs, finish_reason: finish };
                let Open { id, model, created, .. } = &open;
                let completion = Completion {
                    id,
                    object: "chat.completion",
                    created: *created,
                    model,
                    choices: [choice],
                    usage,
                    timings,
                    secateur: pruned,
                };
                return Json(completion).into_response();
            }
        }
    }
    let error = ApiError::internal("the model's thread has ended");
    open.ended.fail(&error);
    error.into_response()
}

/// The answer as a stream. An error that comes at once has its own status; later ones come inside the stream.
async fn streamed_answer(mut open: Open, streamed: Streamed) -> Response {
    match timeout(FIRST_NEWS, open.updates.recv()).await {
        Ok(Some(Update::Ended(Err(error)))) => {
            open.ended.fail(&error);
            error.into_response()
        }
        Ok(first) => stream(open, first, streamed),
        Err(_) => stream(open, None, streamed),
    }
}
