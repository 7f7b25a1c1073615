//! Prefill, then one token at a time: of one answer, or of several side by side.

use std::{ops::ControlFlow, time::Instant};

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{Decoding, Generated, choose::Chooser};
use crate::{
    Error,
    model::{Chunk, EmbeddedPrompt, KvCache, LayerCut, Model},
    pruner::LayerPruner,
};

/// A prompt that is to be read.
pub struct Asked<'a, B: VlmBackend> {
    /// Its embeddings.
    pub prompt: EmbeddedPrompt<B>,
    /// What drops visual tokens on the way through the language model, down to so many.
    pub inside: Option<(&'a dyn LayerPruner<B>, usize)>,
    /// Which random numbers of the seed are its answer's, where tokens are drawn: questions that had the same ones would all be
    /// answered likely, or all unlikely.
    pub draw: u64,
}

impl<B: VlmBackend> Asked<'_, B> {
    /// Its tokens, visual ones included.
    pub fn length(&self) -> usize {
        self.prompt.embeds.dims()[1]
    }
}

impl<B: VlmBackend> From<EmbeddedPrompt<B>> for Asked<'_, B> {
    fn from(prompt: EmbeddedPrompt<B>) -> Self {
        Self { prompt, inside: None, draw: 0 }
    }
}

/// What prompts take over from those before them instead of computing it again: keys and values of what both begin with.
pub enum Reuse<'a, B: VlmBackend> {
    /// Nothing.
    Off,
    /// From each other, and the first one from this prompt.
    On(Option<&'a Begun<B>>),
}

/// A prompt that was read, and waits for the tokens of its answer. Afterwards, prompts that begin like it are read faster.
pub struct Begun<B: VlmBackend> {
    /// What was read; `None` where tokens were dropped on the way, and the cache is that of no other prompt.
    embeds: Option<Tensor<B, 3>>,
    cache: KvCache<B>,
    generated: Generated,
    draw: u64,
}

/// New tokens that are read in one pass: with more, reading the weights is no longer what takes the time, and memory fills up.
const PASS: usize = 1024;

/// Reads prompts, as many in a pass as are short; every weight is read once for all of them. Where tokens are dropped inside the language
/// model, one prompt after another, and whole.
///
/// # Errors
/// When a prompt is longer than the model reads, or the budget inside cannot be kept.
pub fn begin<B: VlmBackend>(
    model: &Model<B>,
    asked: Vec<Asked<B>>,
    decoding: Decoding,
    reuse: Reuse<B>,
) -> Result<Vec<Begun<B>>, Error> {
    let (reuses, first) = match reuse {
        Reuse::Off => (false, None),
        Reuse::On(first) => (true, first),
    };
    let mut begun: Vec<Begun<B>> = Vec::with_capacity(asked.len());
    let mut pass = Pass { prompts: Vec::new(), rows: 0 };
    for Asked { prompt, inside, draw } in asked {
        let length = prompt.embeds.dims()[1];
        let mut cache = model.cache(length, decoding.max_new_tokens)?;
        if let Some((pruner, budget)) = inside {
            begun.extend(pass.read(model)?);
            begun.push(Begun { draw, ..read_cut(model, prompt, cache, pruner, budget)? });
            continue;
        }
        let last = || begun.last().or(first).and_then(|before| before.embeds.clone());
        let before = pass.prompts.last().map(|before| before.embeds.clone()).or_else(last).filter(|_| reuses);
        let shared = before.map_or(0, |before| in_common(&before, &prompt.embeds));
        if pass.rows + length - shared > PASS {
            begun.extend(pass.read(model)?);
        }
        if pass.prompts.is_empty() && shared > 0 {
            begun.last().or(first).into_iter().for_each(|before| cache.start_with(&before.cache, shared));
        }
        pass.rows += length - shared;
        pass.prompts.push(Unread { embeds: prompt.embeds, cache, shared, draw });
    }
    begun.extend(pass.read(model)?);
    Ok(begun)
}

/// How many tokens at the beginning of `next` are those of `before`, without the last one: it gives the logits.
fn in_common<B: VlmBackend>(before: &Tensor<B, 3>, next: &Tensor<B, 3>) -> usize {
    let length = before.dims()[1].min(next.dims()[1] - 1);
    if length == 0 {
        return 0;
    }
    // Compared as numbers, so that there is no key that could go stale.
    let equal = before.clone().narrow(1, 0, length).equal(next.clone().narrow(1, 0, length));
    let equal = equal.int().sum_dim(2).flatten::<1>(0, 2).into_data().convert::<i64>().into_vec::<i64>();
    let hidden = next.dims()[2] as i64;
    equal.unwrap_or_default().iter().take_while(|&&count| count == hidden).count()
}

/// Prompts that are read together.
struct Pass<B: VlmBackend> {
    prompts: Vec<Unread<B>>,
    /// Their new tokens.
    rows: usize,
}

/// A prompt of a pass.
struct Unread<B: VlmBackend> {
    embeds: Tensor<B, 3>,
    /// Of the first one of a pass, it holds what is shared.
    cache: KvCache<B>,
    /// Tokens that are taken over from the prompt before.
    shared: usize,
    draw: u64,
}

impl<B: VlmBackend> Pass<B> {
    /// Reads them, and leaves none.
    ///
    /// # Errors
    /// When logits are not finite.
    fn read(&mut self, model: &Model<B>) -> Result<Vec<Begun<B>>, Error> {
        let mut prompts = std::mem::take(&mut self.prompts);
        self.rows = 0;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let start = Instant::now();
        let mut rows = Vec::with_capacity(prompts.len());
        let mut chunks = Vec::with_capacity(prompts.len());
        for Unread { embeds, cache, shared, .. } in &mut prompts {
            let new = embeds.dims()[1] - *shared;
            rows.push(embeds.clone().narrow(1, *shared, new));
            // What the first one has already was put there before.
            let shared = *shared - cache.next_position();
            chunks.push(Chunk::next(cache, new, shared));
        }
        let logits = model.logits(Tensor::cat(rows, 1), &mut chunks);
        let prefill = start.elapsed();
        let read = |(Unread { embeds, cache, shared, draw }, logits): (_, Vec<f32>)| {
            model.check_logits(&logits, || Some(embeds.clone()))?;
            let generated = Generated::unanswered(logits, embeds.dims()[1], prefill);
            Ok(Begun { embeds: Some(embeds), cache, generated: Generated { shared, ..generated }, draw })
        };
        prompts.into_iter().zip(logits).map(read).collect()
    }
}

/// Reads a prompt, and drops visual tokens on the way through the language model.
fn read_cut<B: VlmBackend>(
    model: &Model<B>,
    EmbeddedPrompt { embeds, visual }: EmbeddedPrompt<B>,
    mut cache: KvCache<B>,
    pruner: &dyn LayerPruner<B>,
    budget: usize,
) -> Result<Begun<B>, Error> {
    let start = Instant::now();
    let length = embeds.dims()[1];
    let chunk = Chunk::next(&mut cache, length, 0);
    let (logits, kept) = model.logits_cut(embeds, chunk, &LayerCut { pruner, visual: &visual, budget })?;
    model.check_logits(&logits, || None)?;
    let generated = Generated::unanswered(logits, length, start.elapsed());
    Ok(Begun { embeds: None, cache, generated: Generated { kept: Some(kept), ..generated }, draw: 0 })
}

/// Once for each prompt: continues them until each has its end token, the longest answer, or `on_token` breaks; it is given the prompt's number
/// and all ids so far after each new one. Every weight is read once for the next tokens of all of them.
///
/// # Errors
/// When logits are not finite.
pub fn decode<B: VlmBackend>(
    model: &Model<B>,
    begun: &mut [Begun<B>],
    decoding: Decoding,
    mut on_token: impl FnMut(usize, &[u32]) -> ControlFlow<()>,
) -> Result<Vec<Generated>, Error> {
    let Decoding { max_new_tokens: limit, sampling, stops } = decoding;
    let start = Instant::now();
    let mut choosers: Vec<Chooser> = begun.iter().map(|begun| Chooser::new(sampling, begun.draw)).collect();
    let mut logits: Vec<(usize, Vec<f32>)> =
        begun.iter().enumerate().map(|(i, begun)| (i, begun.generated.first_logits.clone())).collect();
    loop {
        let mut next = Vec::new();
        for (i, logits) in logits {
            let Begun { cache, generated, .. } = &mut begun[i];
            let id = choosers[i].choose(&logits);
            let goes_on = generated.ids.len() < limit && !(stops && model.ends().contains(&id));
            if goes_on {
                generated.ids.push(id);
            }
            let full = || generated.ids.len() == limit || cache.is_full();
            if goes_on && on_token(i, &generated.ids).is_continue() && !full() {
                generated.steps += 1;
                next.push((i, id));
            } else {
                generated.decode = start.elapsed();
            }
        }
        if next.is_empty() {
            return Ok(begun.iter().map(|begun| begun.generated.clone()).collect());
        }
        let mut going = next.iter().map(|(i, _)| *i).peekable();
        let caches = begun.iter_mut().enumerate().filter(|(i, _)| going.next_if_eq(i).is_some());
        let mut chunks: Vec<_> = caches.map(|(_, begun)| Chunk::next(&mut begun.cache, 1, 0)).collect();
        let ids: Vec<u32> = next.iter().map(|(_, id)| *id).collect();
        let found = model.logits(model.embed(&ids), &mut chunks);
        logits = next.iter().map(|(i, _)| *i).zip(found).collect();
        for (i, logits) in &logits {
            let Begun { embeds, generated, .. } = &begun[*i];
            let whole = || Some(Tensor::cat(vec![embeds.clone()?, model.embed(&generated.ids)], 1));
            model.check_logits(logits, whole)?;
        }
    }
}

/// Continues a prompt until the end token, the longest answer, or until `on_token` breaks; it sees all ids so far after
/// each new one.
///
/// # Errors
/// As [`begin`].
pub fn generate<B: VlmBackend>(
    model: &Model<B>,
    asked: Asked<B>,
    decoding: Decoding,
    mut on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let mut begun = begin(model, vec![asked], decoding, Reuse::Off)?;
    Ok(decode(model, &mut begun, decoding, |_, ids| on_token(ids))?.swap_remove(0))
}
