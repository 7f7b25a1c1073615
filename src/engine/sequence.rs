//! A sequence: a request whose prompt was read, decoded token by token.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{
    Answered, Decoding, Event, Finish, Flow, Generated, RequestId, choose::Chooser, prefix::Prefix, request::Placed,
};
use crate::{
    Error,
    model::{Chunk, KvCache, Model, RowKey},
};

/// A request that is being answered.
pub(super) struct Sequence<'m, B: VlmBackend> {
    id: RequestId,
    placed: Placed<'m, B>,
    /// The keys of the prompt's rows; `None` where tokens were dropped inside the decoder, so that the cache fits no other prompt.
    keys: Option<Vec<RowKey>>,
    cache: KvCache<B>,
    generated: Generated,
    chooser: Chooser,
    /// The logits of the token that is chosen next.
    logits: Vec<f32>,
    began: Instant,
    failed: Option<Error>,
}

impl<'m, B: VlmBackend> Sequence<'m, B> {
    pub(super) fn new(
        id: RequestId,
        placed: Placed<'m, B>,
        keys: Option<Vec<RowKey>>,
        cache: KvCache<B>,
        generated: Generated,
    ) -> Self {
        let Decoding { sampling, repetition_penalty, .. } = placed.decoding;
        let chooser = Chooser::new(sampling, placed.draw).with_penalty(repetition_penalty, &placed.ids);
        let logits = generated.first_logits.clone();
        Self { id, placed, keys, cache, generated, chooser, logits, began: Instant::now(), failed: None }
    }

    /// Bytes of the sequence's keys and values once its answer is as long as it may be.
    pub(super) fn kv_bytes(&self, model: &Model<B>) -> usize {
        self.cache.bytes().max(model.kv_bytes(self.cache.capacity()))
    }

    /// Whether the request was cancelled.
    pub(super) fn is_cancelled(&self) -> bool {
        self.placed.cancel.is_cancelled()
    }

    /// The row keys and the cache that a prompt that begins alike can take over.
    pub(super) fn prefix(&self) -> Option<(&[RowKey], &KvCache<B>)> {
        Some((self.keys.as_deref()?, &self.cache))
    }

    /// Takes the next token, and says whether the answer goes on.
    pub(super) fn choose(&mut self, model: &Model<B>, on_event: &mut dyn FnMut(Event<B>) -> Flow) -> Flow {
        if self.failed.is_some() {
            return ControlFlow::Break(());
        }
        let Decoding { max_new_tokens: limit, stops, .. } = self.placed.decoding;
        let id = self.chooser.choose(&self.logits);
        let ids = &mut self.generated.ids;
        let finish = if ids.len() == limit {
            Finish::Length
        } else if stops && model.ends().contains(&id) {
            Finish::End
        } else {
            ids.push(id);
            if on_event(Event::Token { id: self.id, ids: &*ids, logits: &self.logits }).is_break() {
                Finish::Caller
            } else if ids.len() == limit || self.cache.is_full() {
                Finish::Length
            } else {
                return ControlFlow::Continue(());
            }
        };
        self.generated.finish = finish;
        ControlFlow::Break(())
    }

    /// Ends the sequence: returns its outcome, and the prefix that prompts that begin alike can take over.
    pub(super) fn end(self) -> (RequestId, Result<Answered<B>, Error>, Option<Prefix<B>>) {
        let Self { id, placed, keys, cache, mut generated, failed, began, .. } = self;
        generated.decode = if generated.steps > 0 { began.elapsed() } else { Duration::ZERO };
        let Placed { visual, scores, .. } = placed;
        match failed {
            Some(error) => (id, Err(error), None),
            None => (id, Ok(Answered { visual, scores, generated }), keys.map(|keys| Prefix { keys, cache })),
        }
    }
}

/// Runs the last token of each sequence through the model, and stores the logits of the next token in each.
pub(super) fn step<B: VlmBackend>(model: &Model<B>, running: &mut [Sequence<B>]) {
    let last = |sequence: &Sequence<B>| sequence.generated.ids.last().copied().unwrap_or_default();
    let ids: Vec<u32> = running.iter().map(last).collect();
    let mut chunks: Vec<Chunk<B>> = running.iter_mut().map(|sequence| Chunk::next(&mut sequence.cache, 1, 0)).collect();
    let found = model.logits(model.embed(&ids), &mut chunks);
    for (sequence, logits) in running.iter_mut().zip(found) {
        let Sequence { placed, generated, keys, .. } = sequence;
        generated.steps += 1;
        let whole = || {
            keys.as_ref()?;
            Some(Tensor::cat(vec![placed.prompt.embeds.clone(), model.embed(&generated.ids)], 1))
        };
        sequence.failed = model.check_logits(&logits, whole).err();
        sequence.logits = logits;
    }
}
