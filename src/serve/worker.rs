//! The model's thread: requests from the queue into the engine, and tokens out to the clients.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, TryRecvError},
};

use secateur_backends::VlmBackend;

use super::{
    api::{ApiError, Pruning},
    client::Client,
    job::{Asked, AskedTurn, Job, Update},
    state::State,
};
use crate::{
    Error,
    engine::{Cancel, Decoding, Engine, Event, Media, Request, RequestId},
    model::Model,
    pruner::{Selector, selector},
    text::{Placement, Prompt, Turn, clip_question},
};

/// Answers requests until the queue is closed and the last one has its answer.
pub(super) fn work<B: VlmBackend>(model: &Model<B>, jobs: &Receiver<Job>, state: &State) {
    let settings = state.settings();
    let named = |&name: &&'static str| Some((name, selector::<B>(name, settings.params).ok()?));
    let selectors: BTreeMap<&'static str, Selector<B>> = settings.methods.iter().filter_map(named).collect();
    while Service::new(model, &selectors, state).run(jobs).is_continue() {}
}

/// An engine and the clients of its requests.
struct Service<'m, B: VlmBackend> {
    engine: Engine<'m, B>,
    selectors: &'m BTreeMap<&'static str, Selector<B>>,
    clients: BTreeMap<RequestId, Client>,
    state: &'m State,
    /// The uses of the encoder that are counted already.
    encoder: [u64; 2],
}

impl<'m, B: VlmBackend> Service<'m, B> {
    fn new(model: &'m Model<B>, selectors: &'m BTreeMap<&'static str, Selector<B>>, state: &'m State) -> Self {
        let engine = Engine::new(model, state.settings().limits);
        Self { engine, selectors, clients: BTreeMap::new(), state, encoder: [0; 2] }
    }

    /// Answers requests. Goes on with a new engine after a panic, which ends the requests in flight and no others.
    fn run(mut self, jobs: &Receiver<Job>) -> ControlFlow<()> {
        while self.take(jobs) {
            if catch_unwind(AssertUnwindSafe(|| self.step())).is_err() {
                (self.state.settings().log)(
                    "error: a step of the engine broke off; requests in flight end with status 500",
                );
                let broken = ApiError::internal("the engine broke off; this is an error of Secateur");
                std::mem::take(&mut self.clients).into_values().for_each(|client| client.fail(broken.clone()));
                return ControlFlow::Continue(());
            }
        }
        ControlFlow::Break(())
    }

    /// Takes as many requests from the queue as are answered side by side; waits for one where there is nothing else to do. `false` once the queue
    /// is closed and all requests have ended.
    fn take(&mut self, jobs: &Receiver<Job>) -> bool {
        while self.engine.unfinished() < self.state.settings().limits.batch.max(1) {
            let job = if self.engine.unfinished() == 0 {
                jobs.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                jobs.try_recv()
            };
            match job {
                Ok(job) => self.submit(job),
                Err(TryRecvError::Disconnected) if self.engine.unfinished() == 0 => return false,
                Err(_) => break,
            }
        }
        true
    }

    fn submit(&mut self, job: Job) {
        let Job { asked, updates, cancel, arrived, ticket, part } = job;
        drop(ticket);
        if cancel.is_cancelled() {
            return;
        }
        match self.request(&asked, cancel) {
            Ok(request) => {
                let id = self.engine.submit(request);
                self.clients.insert(id, Client::new(asked, updates, arrived, part));
            }
            // A client that has gone needs no answer.
            Err(error) => drop(updates.send(Update::Ended(Err(error)))),
        }
    }

    fn request(&self, asked: &Asked, cancel: Cancel) -> Result<Request<'m, B>, ApiError> {
        let model = self.engine.model();
        let form = model.chat();
        let place = |AskedTurn { turn, placed, images }: &AskedTurn| {
            let text = if form.placement == Placement::Inline { placed } else { &turn.user };
            let user = form.place(text, &vec![1; *images])?;
            Ok(Turn { user, answer: turn.answer.clone() })
        };
        let prompt = || -> Result<Prompt, Error> {
            let turns = asked.turns.iter().map(place).collect::<Result<Vec<_>, Error>>()?;
            let question = asked.turns.last().map_or("", |asked| &asked.turn.user);
            let text = form.conversation(asked.system.as_deref(), &turns);
            Prompt::new(&text, &clip_question(question), model.tokenizer())
        };
        let prompt = prompt().map_err(|error| ApiError::of(&error))?;
        let media = asked.media.iter().cloned().map(Media::Shared).collect();
        let Pruning { method, budget, drawn, .. } = asked.pruning;
        let selector = self.selectors.get(method).ok_or_else(|| ApiError::internal("the method is not there"))?;
        let decoding = Decoding { repetition_penalty: model.repetition_penalty(), ..asked.decoding };
        let request = Request::new(media, prompt, selector, budget, decoding);
        Ok(Request { draw: asked.draw, cancel, scores: drawn, ..request })
    }

    fn step(&mut self) {
        let (model, clients) = (self.engine.model(), &mut self.clients);
        self.engine.step(&mut |event| match event {
            Event::Token { id, ids, logits } => {
                clients.get_mut(&id).map_or(ControlFlow::Break(()), |client| client.token(model, ids, logits))
            }
            Event::Ended { id, outcome } => {
                if let Some(client) = clients.remove(&id) {
                    client.end(model, outcome);
                }
                ControlFlow::Break(())
            }
        });
        let metrics = &self.state.metrics;
        metrics.running.set(i64::try_from(self.engine.unfinished()).unwrap_or(i64::MAX));
        let now = self.engine.encoder_use();
        metrics.encoder_runs.inc_by(now[0] - self.encoder[0]);
        metrics.encoder_hits.inc_by(now[1] - self.encoder[1]);
        self.encoder = now;
    }
}
