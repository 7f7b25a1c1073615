//! Prefill of prompts that are read together.

use std::time::Instant;

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{
    Generated, RequestId,
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
}

/// Prompts that are read in one pass, every weight once for all of them; one whose tokens are dropped on the way is read alone.
pub(super) struct PrefillBatch<'m, B: VlmBackend> {
    prompts: Vec<Pending<'m, B>>,
    /// Whether rows may be taken over from other prompts.
    reuses: bool,
}

/// The outcome of reading a prompt: the sequence to decode, or an error.
type Read<'m, B> = (RequestId, Result<Sequence<'m, B>, Error>);

impl<'m, B: VlmBackend> PrefillBatch<'m, B> {
    pub(super) fn new(reuses: bool) -> Self {
        Self { prompts: Vec::new(), reuses }
    }

    pub(super) fn len(&self) -> usize {
        self.prompts.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.prompts.is_empty()
    }

    /// Number of rows that are to be read.
    pub(super) fn rows(&self) -> usize {
        self.prompts.iter().map(|pending| pending.keys.len() - pending.shared).sum()
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
        if self.reuses && placed.inside.is_none() {
            let here = self.prompts.last().filter(|before| before.placed.inside.is_none());
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
        self.prompts.push(Pending { id, placed, keys, cache, shared: taken });
        Ok(())
    }

    /// Reads all prompts of the batch.
    pub(super) fn read(self, model: &Model<B>) -> Vec<Read<'m, B>> {
        let mut read = Vec::with_capacity(self.prompts.len());
        let mut together: Vec<Pending<B>> = Vec::new();
        for pending in self.prompts {
            if pending.placed.inside.is_some() {
                read.extend(read_together(model, std::mem::take(&mut together)));
                read.push((pending.id, read_cut(model, pending)));
            } else {
                together.push(pending);
            }
        }
        read.extend(read_together(model, together));
        read
    }
}

/// Reads prompts in one pass, which ends early if nobody waits for any of them.
fn read_together<'m, B: VlmBackend>(model: &Model<B>, mut prompts: Vec<Pending<'m, B>>) -> Vec<Read<'m, B>> {
    if prompts.is_empty() {
        return Vec::new();
    }
    let start = Instant::now();
    let mut rows = Vec::with_capacity(prompts.len());
    let mut chunks = Vec::with_capacity(prompts.len());
    let mut cancels = Vec::with_capacity(prompts.len());
    for Pending { placed, cache, keys, shared, .. } in &mut prompts {
        let new = keys.len() - *shared;
        rows.push(placed.prompt.embeds.clone().narrow(1, *shared, new));
        // Tokens that are in the cache already are not taken over again.
        let shared = *shared - cache.next_position();
        chunks.push(Chunk::next(cache, new, shared));
        cancels.push(placed.cancel.clone());
    }
    let is_cancelled = || cancels.iter().all(|cancel| cancel.is_cancelled());
    let embeds = if rows.len() == 1 { rows.swap_remove(0) } else { Tensor::cat(rows, 1) };
    let Some(logits) = model.logits_unless(embeds, &mut chunks, &is_cancelled) else {
        return prompts.into_iter().map(|pending| (pending.id, Err(Error::Cancelled))).collect();
    };
    let prefill = start.elapsed();
    let begun = |(pending, logits): (Pending<'m, B>, Vec<f32>)| {
        let Pending { id, placed, keys, cache, shared } = pending;
        let embeds = placed.prompt.embeds.clone();
        if let Err(error) = model.check_logits(&logits, || Some(embeds)) {
            return (id, Err(error));
        }
        let generated = Generated { shared, ..Generated::unanswered(logits, keys.len(), prefill) };
        (id, Ok(Sequence::new(id, placed, Some(keys), cache, generated)))
    };
    prompts.into_iter().zip(logits).map(begun).collect()
}

/// Reads a prompt, and drops visual tokens on the way through the decoder.
fn read_cut<'m, B: VlmBackend>(model: &Model<B>, pending: Pending<'m, B>) -> Result<Sequence<'m, B>, Error> {
    let Pending { id, placed, keys, mut cache, .. } = pending;
    let start = Instant::now();
    let (pruner, budget) = placed.inside.ok_or(Error::Cancelled)?;
    let chunk = Chunk::next(&mut cache, keys.len(), 0);
    let is_cancelled = || placed.cancel.is_cancelled();
    let cut = LayerCut { pruner, visual: &placed.prompt.visual, budget, is_cancelled: &is_cancelled };
    let (logits, kept) = model.logits_cut(placed.prompt.embeds.clone(), chunk, &cut)?;
    model.check_logits(&logits, || None)?;
    let generated = Generated { kept: Some(kept), ..Generated::unanswered(logits, keys.len(), start.elapsed()) };
    Ok(Sequence::new(id, placed, None, cache, generated))
}
