//! `POST /v1/chat/completions`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    body::Body,
    extract::State as Shared,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::{
    api::{ApiError, ChatRequest, Choice, Completion, Conversation, ImageSource, Logprobs, Message, UserTurn},
    body::{check_form, read_body},
    job::{Asked, AskedTurn, Job, Outcome, Update},
    media::in_background,
    open::{Ended, Open},
    state::{State, now},
    stream::{Streamed, stream},
};
use crate::{
    engine::{Cancel, SharedMedia},
    text::Turn,
};

/// Time for the first news of a request that streams; an error that comes later is sent inside the stream.
const FIRST_NEWS: Duration = Duration::from_secs(5);

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
    let ticket = state.queue.ticket()?;
    let Conversation { system, turns } = Conversation::new(request.messages)?;
    let (turns, sources): (Vec<_>, Vec<_>) = turns.into_iter().map(taken_apart).unzip();
    let opened = state.images.open(sources.into_iter().flatten().collect()).await?;
    let media = opened.media.into_iter().map(SharedMedia::new).collect();
    let asked = Asked { system, turns, media, pruning, decoding, draw, stops, alternatives };
    let (sender, updates) = unbounded_channel();
    state.submit(Job { asked, updates: sender, cancel, arrived, ticket, part: opened.part })?;
    Ok((updates, model, streamed))
}

fn taken_apart(turn: UserTurn) -> (AskedTurn, Vec<ImageSource>) {
    let UserTurn { text, placed, images, answer } = turn;
    (AskedTurn { turn: Turn { user: text, answer }, placed, images: images.len() }, images)
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
