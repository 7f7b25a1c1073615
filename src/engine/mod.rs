//! The engine, requests in and tokens out: admit → prefill → decode → retire, a step at a time.
//!
//! Requests join and leave between steps. An error of one request, or a client that goes away, touches no other. The output of the vision tower is
//! kept for media that come again, and keys and values for prompts that begin alike.

mod answer;
mod choose;
mod encoder;
mod prefill;
mod prefix;
mod request;
mod sequence;
mod stream;

use std::collections::VecDeque;

pub use answer::{Answered, answer, answer_encoded, go_on, kept};
pub use choose::Sampling;
use encoder::EncoderCache;
pub use encoder::{Encoded, Media, SharedMedia};
use prefill::PrefillBatch;
use prefix::PrefixCache;
pub use request::{Cancel, Decoding, Finish, Generated, Request};
use secateur_backends::VlmBackend;
use sequence::Sequence;
pub use stream::Stream;

use crate::{Error, model::Model};

/// Limits on what an engine holds and does at once.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Number of requests that are decoded side by side.
    pub batch: usize,
    /// Number of new tokens from which on a prefill takes no more prompts: with more, reading the weights is no longer what takes the time, and
    /// memory fills up.
    pub rows: usize,
    /// Number of a prompt's tokens that a step reads at most: a longer prompt is read in several steps, between which other answers go on. Prompts of
    /// a method that prunes inside the decoder are read as a whole.
    pub step_rows: usize,
    /// Bytes of keys and values of all requests that are decoded; a request alone may take more.
    pub kv_bytes: usize,
    /// Bytes of keys and values of ended requests that are kept for prompts that begin like them; those of the newest stay, however large.
    pub prefix_bytes: usize,
    /// Bytes of tower outputs that are kept.
    pub encoder_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 1,
            rows: 1024,
            step_rows: usize::MAX,
            kv_bytes: 8 << 30,
            prefix_bytes: 1 << 30,
            encoder_bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// Sets the limits to keep nothing for later requests.
    #[must_use]
    pub fn without_reuse(self) -> Self {
        Self { prefix_bytes: 0, encoder_bytes: 0, ..self }
    }
}

/// A request's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(u64);

/// An event of a step: a new token, or the end of a request.
pub enum Event<'e, B: VlmBackend> {
    /// A request has another token; `ids` are all of its answer so far.
    Token {
        /// The request.
        id: RequestId,
        /// The answer so far.
        ids: &'e [u32],
        /// The logits that the newest token was chosen by, the whole vocabulary.
        logits: &'e [f32],
    },
    /// A request has ended, with its answer or with an error. A request that was cancelled ends with the answer so
    /// far, or with [`Error::Cancelled`] if it had none.
    Ended {
        /// The request.
        id: RequestId,
        /// The answer, or the error that ended the request.
        outcome: Result<Answered<B>, Error>,
    },
}

/// The decision after a token: the answer goes on, or ends.
pub type Flow = std::ops::ControlFlow<()>;

/// Answers requests with one model, as many side by side as its limits allow.
pub struct Engine<'m, B: VlmBackend> {
    model: &'m Model<B>,
    limits: Limits,
    encoder: EncoderCache<B>,
    prefixes: PrefixCache<B>,
    waiting: VecDeque<(RequestId, Request<'m, B>)>,
    /// The prompts that are being read.
    prefill: PrefillBatch<'m, B>,
    running: Vec<Sequence<'m, B>>,
    next: u64,
}

impl<'m, B: VlmBackend> Engine<'m, B> {
    /// An engine without requests.
    pub fn new(model: &'m Model<B>, limits: Limits) -> Self {
        Self {
            model,
            limits,
            encoder: EncoderCache::new(limits.encoder_bytes),
            prefixes: PrefixCache::new(limits.prefix_bytes),
            waiting: VecDeque::new(),
            prefill: PrefillBatch::new(limits),
            running: Vec::new(),
            next: 0,
        }
    }

    /// The model.
    pub fn model(&self) -> &'m Model<B> {
        self.model
    }

    /// Takes a request, which begins in one of the next steps.
    pub fn submit(&mut self, request: Request<'m, B>) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request));
        id
    }

    /// Number of requests that wait or are being answered.
    pub fn unfinished(&self) -> usize {
        self.waiting.len() + self.prefill.len() + self.running.len()
    }

    /// The numbers of images and videos that the vision tower has encoded, and of those whose encoding was kept.
    pub fn encoder_use(&self) -> [u64; 2] {
        [self.encoder.encoded() as u64, self.encoder.hits() as u64]
    }

    /// Runs one step: the requests that fit are admitted and their prompts read, then every answer gets its next token. `on_event` says after each
    /// token whether the answer goes on.
    pub fn step(&mut self, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        self.retire_cancelled(on_event);
        self.admit(on_event);
        let read = self.prefill.read(self.model);
        self.begin(read, on_event);
        self.decode(on_event);
    }

    /// Steps until no request is left.
    pub fn run(&mut self, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        while self.unfinished() > 0 {
            self.step(on_event);
        }
    }

    /// Ends the requests whose clients have gone.
    fn retire_cancelled(&mut self, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(Sequence::is_cancelled);
        self.running = stay;
        gone.into_iter().for_each(|sequence| self.retire(sequence, on_event));
        for id in self.prefill.drop_cancelled() {
            let _ = on_event(Event::Ended { id, outcome: Err(Error::Cancelled) });
        }
        let waiting = std::mem::take(&mut self.waiting);
        for (id, request) in waiting {
            if request.cancel.is_cancelled() {
                let _ = on_event(Event::Ended { id, outcome: Err(Error::Cancelled) });
            } else {
                self.waiting.push_back((id, request));
            }
        }
    }

    /// Takes waiting requests as long as they fit beside those that run: their media are encoded and pruned, and put into their prompts.
    fn admit(&mut self, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        let of_running = self.running.iter().map(|sequence| sequence.kv_bytes(self.model));
        let mut bytes = of_running.sum::<usize>() + self.prefill.kv_bytes(self.model);
        let encoded = self.encoder.encoded();
        while self.running.len() + self.prefill.len() < self.limits.batch.max(1) && !self.prefill.is_full() {
            // Others wait for one run of the vision tower at most.
            let steps = self.limits.step_rows < usize::MAX && !self.running.is_empty();
            if steps && self.encoder.encoded() > encoded {
                break;
            }
            let Some((id, request)) = self.waiting.pop_front() else { break };
            let alone = self.running.is_empty() && self.prefill.is_empty();
            let planned = self.model.kv_bytes(request.longest(self.model));
            if !alone && bytes + planned > self.limits.kv_bytes {
                self.waiting.push_front((id, request));
                break;
            }
            match request.place(self.model, &mut self.encoder) {
                Err(error) => {
                    let _ = on_event(Event::Ended { id, outcome: Err(error) });
                }
                Ok(placed) => {
                    bytes += planned;
                    let fits = self.prefill.add(id, placed, &self.prefixes, &self.running, self.model);
                    if let Err(error) = fits {
                        let _ = on_event(Event::Ended { id, outcome: Err(error) });
                    }
                }
            }
        }
    }

    /// Gives the requests whose prompts were read their first token.
    fn begin(
        &mut self,
        read: Vec<(RequestId, Result<Sequence<'m, B>, Error>)>,
        on_event: &mut dyn FnMut(Event<B>) -> Flow,
    ) {
        for (id, sequence) in read {
            match sequence {
                Err(error) => {
                    let _ = on_event(Event::Ended { id, outcome: Err(error) });
                }
                Ok(mut sequence) => {
                    if sequence.choose(self.model, on_event).is_continue() {
                        self.running.push(sequence);
                    } else {
                        self.retire(sequence, on_event);
                    }
                }
            }
        }
    }

    /// Decodes the next token of every answer; every weight is read once for all of them.
    fn decode(&mut self, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        if self.running.is_empty() {
            return;
        }
        let mut running = std::mem::take(&mut self.running);
        sequence::step(self.model, &mut running);
        for mut sequence in running {
            if sequence.choose(self.model, on_event).is_continue() {
                self.running.push(sequence);
            } else {
                self.retire(sequence, on_event);
            }
        }
    }

    /// Hands out the outcome of a request, and keeps its keys and values for prompts that begin alike.
    fn retire(&mut self, sequence: Sequence<'m, B>, on_event: &mut dyn FnMut(Event<B>) -> Flow) {
        let (id, outcome, prefix) = sequence.end();
        if let Some(prefix) = prefix {
            self.prefixes.keep(prefix);
        }
        let _ = on_event(Event::Ended { id, outcome });
    }
}
