//! Prefill of prompts that are read together.

use std::time::{Duration, Instant};

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{
    Generated, Limits, RequestId,
    prefix::{PrefixCache, shared},
    request::Placed,
    sequence::Sequence,
};
use crate::{
    Error,
    model::{Chunk, KvCache, LayerCut, Model, RowKey},
};

/// A prompt that waits to be read.
struct Pending<'m, B: VlmBackend> {
    id: RequestId,
    placed: Placed<'m, B>,
    keys: Vec<RowKey>,
    /// The cache, with the keys and values that were taken over from a prompt that was read before.
    cache: KvCache<B>,
    /// Number of rows that are taken over, from a prompt that was read before or from the prompt before this one in the batch.
    shared: usize,
    /// Time in the passes so far.
    time: Duration,
}

impl<B: VlmBackend> Pending<'_, B> {
    /// Number of rows that are to be read.
    fn left(&self) -> usize {
        self.keys.len() - self.shared.max(self.cache.tokens(0))
    }

    /// Whether tokens are dropped on the way, so that the prompt is read by itself.
    fn is_cut(&self) -> bool {
        self.placed.inside.is_some()
    }
}

/// Prompts that are read in one pass, every weight once for all of them; one whose tokens are dropped on the way is read alone.
pub(super) struct PrefillBatch<'m, B: VlmBackend> {
    prompts: Vec<Pending<'m, B>>,
    limits: Limits,
}

/// The outcome of reading a prompt: the sequence to decode, or an error.
type Read<'m, B> = (RequestId, Result<Sequence<'m, B>, Error>);

impl<'m, B: VlmBackend> PrefillBatch<'m, B> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { prompts: Vec::new(), limits }
    }

    pub(super) fn len(&self) -> usize {
        self.prompts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Whether the next pass has as many rows as it may have.
    pub(super) fn is_full(&self) -> bool {
        let rows: usize = self.prompts.iter().map(Pending::left).sum();
        rows >= self.limits.rows.min(self.limits.step_rows)
    }

    /// Bytes of the keys and values of all prompts once their answers are as long as they may be.
    pub(super) fn kv_bytes(&self, model: &Model<B>) -> usize {
        self.prompts.iter().map(|pending| model.kv_bytes(pending.cache.capacity())).sum()
    }

    /// Drops the prompts whose clients have gone, and returns their numbers.
    pub(super) fn drop_cancelled(&mut self) -> Vec<RequestId> {
        let (gone, stay): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.prompts).into_iter().partition(|pending| pending.placed.cancel.is_cancelled());
        self.prompts = stay;
        gone.into_iter().map(|pending| pending.id).collect()
    }

    /// Adds a prompt, with the rows that it has in common with prompts before it.
    ///
    /// # Errors
    /// When the prompt is longer than the model reads.
    pub(super) fn add(
        &mut self,
        id: RequestId,
        mut placed: Placed<'m, B>,
        prefixes: &PrefixCache<B>,
        running: &[Sequence<'m, B>],
        model: &Model<B>,
    ) -> Result<(), Error> {
        let keys = std::mem::take(&mut placed.prompt.keys);
        let mut cache = model.cache(keys.len(), placed.decoding.max_new_tokens)?;
        let mut taken = 0;
        if self.limits.prefix_bytes > 0 && placed.inside.is_none() {
            let here = self.prompts.last().filter(|before| !before.is_cut());
            let here = here.map_or(0, |before| shared(&before.keys, &keys));
            let beside = running.iter().filter_map(|sequence| sequence.prefix());
            let beside = beside.map(|(before, cache)| (cache, shared(before, &keys)));
            let best = beside.chain(prefixes.longest(&keys)).max_by_key(|&(_, count)| count);
            match best {
                Some((before, count)) if count > here => {
                    cache.start_with(before, count);
                    taken = count;
                }
                _ => taken = here,
            }
        }
        self.prompts.push(Pending { id, placed, keys, cache, shared: taken, time: Duration::ZERO });
        Ok(())
    }

    /// Reads the prompts of the batch; of a prompt that is too long for one step, the next part, and it stays in the batch.
    pub(super) fn read(&mut self, model: &Model<B>) -> Vec<Read<'m, B>> {
        let mut read = Vec::with_capacity(self.prompts.len());
        let mut together: Vec<Pending<B>> = Vec::new();
        let mut left = self.limits.step_rows;
        for pending in std::mem::take(&mut self.prompts) {
            if pending.is_cut() {
                read.extend(self.read_together(model, std::mem::take(&mut together), &mut left));
                read.push((pending.id, read_cut(model, pending)));
            } else {
                together.push(pending);
            }
        }
        read.extend(self.read_together(model, together, &mut left));
        read
    }

    /// Reads prompts in one pass of at most `left` rows, and keeps the one that is not at its end then. The pass ends early if nobody waits for any
    /// of them.
    fn read_together(
        &mut self,
        model: &Model<B>,
        mut prompts: Vec<Pending<'m, B>>,
        left: &mut usize,
    ) -> Vec<Read<'m, B>> {
        if prompts.is_empty() {
            return Vec::new();
        }
        let start = Instant::now();
        let mut rows = Vec::with_capacity(prompts.len());
        let mut chunks = Vec::with_capacity(prompts.len());
        let mut cancels = Vec::with_capacity(prompts.len());
        for pending in &mut prompts {
            let count = pending.left().min(*left);
            *left -= count;
            let first = pending.keys.len() - pending.left();
            rows.push(pending.placed.prompt.embeds.clone().narrow(1, first, count));
            // Tokens that are in the cache already are not taken over again.
            let shared = pending.shared.saturating_sub(pending.cache.tokens(0));
            let positions = pending.placed.prompt.positions.part(first, count);
            chunks.push(Chunk { positions, ..Chunk::next(&mut pending.cache, count, shared) });
            cancels.push(pending.placed.cancel.clone());
        }
        let is_cancelled = || cancels.iter().all(|cancel| cancel.is_cancelled());
        let embeds = if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 1) };
        let Some(logits) = model.logits_unless(embeds, &mut chunks, &is_cancelled) else {
            return prompts.into_iter().map(|pending| (pending.id, Err(Error::Cancelled))).collect();
        };
        let time = start.elapsed();
        let mut read = Vec::with_capacity(prompts.len());
        for (mut pending, logits) in prompts.into_iter().zip(logits) {
            pending.time += time;
            if pending.left() > 0 {
                self.prompts.push(pending);
            } else {
                read.push((pending.id, begun(model, pending, logits)));
            }
        }
        read
    }
}

/// The sequence of a prompt that was read, whose last row has these logits.
fn begun<'m, B: VlmBackend>(
    model: &Model<B>,
    pending: Pending<'m, B>,
    logits: Vec<f32>,
) -> Result<Sequence<'m, B>, Error> {
    let Pending { id, placed, keys, cache, shared, time } = pending;
    let embeds = placed.prompt.embeds.clone();
    model.check_logits(&logits, || Some(embeds))?;
    let generated = Generated { shared, ..Generated::unanswered(logits, keys.len(), time) };
    Ok(Sequence::new(id, placed, Some(keys), cache, generated))
}

/// Reads a prompt, and drops visual tokens on the way through the decoder.
fn read_cut<'m, B: VlmBackend>(model: &Model<B>, pending: Pending<'m, B>) -> Result<Sequence<'m, B>, Error> {
    let Pending { id, placed, keys, mut cache, .. } = pending;
    let start = Instant::now();
    let (pruner, budget) = placed.inside.ok_or(Error::Cancelled)?;
    let positions = placed.prompt.positions.clone();
    let chunk = Chunk { positions, ..Chunk::next(&mut cache, keys.len(), 0) };
    let is_cancelled = || placed.cancel.is_cancelled();
    let cut = LayerCut { pruner, visual: &placed.prompt.visual, budget, is_cancelled: &is_cancelled };
    let (logits, kept) = model.logits_cut(placed.prompt.embeds.clone(), chunk, &cut)?;
    model.check_logits(&logits, || None)?;
    let generated = Generated { kept: Some(kept), ..Generated::unanswered(logits, keys.len(), start.elapsed()) };
    Ok(Sequence::new(id, placed, None, cache, generated))
}
