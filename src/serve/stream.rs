//! An answer as server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};

use super::{
    api::{Chunk, Delta, Logprobs},
    job::{Outcome, Update},
    open::{Ended, Open},
};

/// The time after which a comment tells a client, and what lies between, that the connection lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How a request streams.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streamed {
    /// Whether the numbers of tokens come as a chunk of their own.
    pub(super) usage: bool,
}

/// What all chunks of an answer have in common.
struct Chunks {
    id: String,
    model: String,
    created: u64,
    streamed: Streamed,
    ended: Ended,
}

/// The answer as a stream that begins with the news in `first`.
pub(super) fn stream(open: Open, first: Option<Update>, streamed: Streamed) -> Response {
    let Open { id, model, created, mut updates, ended } = open;
    let mut chunks = Chunks { id, model, created, streamed, ended };
    let (sender, events) = unbounded_channel();
    tokio::spawn(async move {
        let role = chunks.chunk(json!({ "role": "assistant", "content": "" }), None, None);
        let mut ready = vec![role];
        ready.extend(first.into_iter().flat_map(|update| chunks.events(update)));
        loop {
            // A client that goes away ends this task, and with `chunks` the request, which is cancelled.
            if ready.drain(..).any(|event| sender.send(event).is_err()) {
                return;
            }
            let update = tokio::select! {
                () = sender.closed() => None,
                update = updates.recv() => update,
            };
            let Some(update) = update else { return };
            ready = chunks.events(update);
        }
    });
    let events = UnboundedReceiverStream::new(events).map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

impl Chunks {
    /// The events for news of the request.
    fn events(&mut self, update: Update) -> Vec<Event> {
        match update {
            Update::Token { text, logprob } => {
                self.ended.token();
                let logprobs = logprob.map(|logprob| Logprobs { content: vec![logprob] });
                // Nothing to say yet: the token's text waits.
                if text.is_empty() && logprobs.is_none() {
                    return Vec::new();
                }
                vec![self.chunk(json!({ "content": text }), logprobs, None)]
            }
            Update::Ended(Err(error)) => {
                self.ended.fail(&error);
                vec![event(&error.body()), Event::default().data("[DONE]")]
            }
            Update::Ended(Ok(outcome)) => self.end(*outcome),
        }
    }

    fn end(&mut self, outcome: Outcome) -> Vec<Event> {
        self.ended.end(&outcome);
        let Outcome { text, finish, usage, timings, pruned } = outcome;
        let mut events = Vec::new();
        if !text.is_empty() {
            events.push(self.chunk(json!({ "content": text }), None, None));
        }
        let last = Delta { index: 0, delta: json!({}), logprobs: None, finish_reason: Some(finish) };
        let last = Chunk { timings: Some(timings), secateur: Some(pruned), ..self.bare(vec![last]) };
        events.push(event(&last));
        if self.streamed.usage {
            events.push(event(&Chunk { usage: Some(usage), ..self.bare(Vec::new()) }));
        }
        events.push(Event::default().data("[DONE]"));
        events
    }

    fn chunk(&self, delta: Value, logprobs: Option<Logprobs>, finish_reason: Option<&'static str>) -> Event {
        event(&self.bare(vec![Delta { index: 0, delta, logprobs, finish_reason }]))
    }

    fn bare(&self, choices: Vec<Delta>) -> Chunk<'_> {
        let Self { id, model, created, .. } = self;
        Chunk {
            id,
            object: "chat.completion.chunk",
            created: *created,
            model,
            choices,
            usage: None,
            timings: None,
            secateur: None,
        }
    }
}

/// An event with an object. JSON spells line breaks out, so that none can end the event.
fn event(object: &impl serde::Serialize) -> Event {
    Event::default().data(serde_json::to_string(object).unwrap_or_default())
}
