//! A request that is being answered, as its client sees it.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use secateur_backends::VlmBackend;
use tokio::sync::{OwnedSemaphorePermit, mpsc::UnboundedSender};

use super::{
    api::{ApiError, Drawing, ImageTokens, Pruned, Timings, Usage},
    drawings::draw,
    job::{Asked, Outcome, Update},
    logprobs::newest,
    stops::Stops,
};
use crate::{
    Error,
    engine::{Answered, Finish, Flow, SharedMedia, Stream, kept},
    image::Grid,
    model::Model,
};

/// The client of a request, and the part of the answer that it has.
pub(super) struct Client {
    asked: Asked,
    updates: UnboundedSender<Update>,
    arrived: Instant,
    /// The time at which the engine took it.
    taken: Instant,
    stream: Stream,
    stops: Stops,
    /// Whether a stop text was found.
    stopped: bool,
    /// Its part of the bound on pixels, which ends with it.
    _part: OwnedSemaphorePermit,
}

impl Client {
    pub(super) fn new(
        mut asked: Asked,
        updates: UnboundedSender<Update>,
        arrived: Instant,
        part: OwnedSemaphorePermit,
    ) -> Self {
        let stops = Stops::new(std::mem::take(&mut asked.stops));
        let (taken, stream) = (Instant::now(), Stream::default());
        Self { asked, updates, arrived, taken, stream, stops, stopped: false, _part: part }
    }

    /// Sends the newest token of `ids`, and says whether the answer goes on.
    pub(super) fn token<B: VlmBackend>(&mut self, model: &Model<B>, ids: &[u32], logits: &[f32]) -> Flow {
        let (text, stopped) = self.stops.push(&self.stream.push(model, ids));
        self.stopped = stopped;
        let logprob = self.asked.alternatives.map(|most| newest(model, ids, logits, most));
        let sent = self.updates.send(Update::Token { text, logprob });
        if sent.is_ok() && !stopped { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    /// Sends an error as the request's end.
    pub(super) fn fail(self, error: ApiError) {
        // A client that has gone needs no answer.
        let _ = self.updates.send(Update::Ended(Err(error)));
    }

    /// Sends the request's end.
    pub(super) fn end<B: VlmBackend>(mut self, model: &Model<B>, outcome: Result<Answered<B>, Error>) {
        let answered = match outcome {
            Ok(answered) => answered,
            Err(error) => return self.fail(ApiError::of(&error)),
        };
        let text = self.rest(&model.tokenizer().decode(&answered.generated.ids));
        let finish = if answered.generated.finish == Finish::Length { "length" } else { "stop" };
        let (usage, timings) = (usage(&answered), self.timings(&answered));
        let pruned = self.pruned(model, &answered);
        let outcome = Outcome { text, finish, usage, timings, pruned };
        let _ = self.updates.send(Update::Ended(Ok(Box::new(outcome))));
    }

    /// The text of the answer that was not sent yet.
    fn rest(&mut self, whole: &str) -> String {
        if self.stopped {
            return String::new();
        }
        let (text, stopped) = self.stops.push(&self.stream.finish(whole));
        if stopped { text } else { text + &self.stops.finish() }
    }

    fn timings<B: VlmBackend>(&self, answered: &Answered<B>) -> Timings {
        let Answered { visual, generated, .. } = answered;
        let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Timings {
            queue: ms(self.taken - self.arrived),
            vision: ms(visual.iter().map(|visual| visual.vision).sum()),
            prune: ms(visual.iter().map(|visual| visual.prune).sum()),
            prefill: ms(generated.prefill),
            decode: ms(generated.decode),
        }
    }

    fn pruned<B: VlmBackend>(&self, model: &Model<B>, answered: &Answered<B>) -> Pruned {
        let Answered { visual, generated, scores } = answered;
        let (items, visual_tokens) = kept(visual, generated);
        let mut items = items.into_iter();
        let by_image = visual.iter().map(|visual| items.by_ref().take(visual.keep.indices().len()).collect());
        let by_image: Vec<Vec<Vec<usize>>> = by_image.collect();
        let Grid { rows, columns, .. } = visual.first().map_or(model.grid(), |visual| visual.grid);
        let drawings = self.asked.pruning.drawn.then(|| {
            let images = self.asked.media.iter().zip(visual).zip(&by_image).enumerate();
            let one = |(i, ((media, visual), kept)): (usize, ((_, _), &Vec<Vec<usize>>))| -> Drawing {
                let media: &Arc<SharedMedia> = media;
                draw(model, media.media(), visual, kept, scores.get(i).and_then(Option::as_ref))
            };
            images.map(one).collect()
        });
        Pruned {
            method: self.asked.pruning.method,
            visual_tokens,
            visual_tokens_before: visual.iter().map(|visual| visual.unpruned).sum(),
            grid: [rows, columns],
            kept: self.asked.pruning.kept.then_some(by_image),
            drawings,
        }
    }
}

/// The numbers of tokens of an answer.
fn usage<B: VlmBackend>(Answered { visual, generated, .. }: &Answered<B>) -> Usage {
    let (prompt_tokens, completion_tokens) = (generated.prompt, generated.ids.len());
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: ImageTokens {
            cached_tokens: generated.shared,
            image_tokens: kept(visual, generated).1,
            image_tokens_unpruned: visual.iter().map(|visual| visual.unpruned).sum(),
        },
    }
}
