//! Prefill, then one token at a time: of one answer, or of several side by side.

use std::{ops::ControlFlow, time::Instant};

use burn::tensor::Tensor;
use secateur_backends::VlmBackend;

use super::{Decoding, Generated, choose::Chooser};
use crate::{
    Error,
    model::{KvCache, LayerCut, Llava, Spliced},
    pruner::LayerPruner,
};

/// A prompt that was read, and waits for the tokens of its answer. Afterwards, prompts that begin like it are read faster.
pub struct Begun<B: VlmBackend> {
    /// What was read; `None` where tokens were dropped on the way, and the cache is that of no other prompt.
    embeds: Option<Tensor<B, 3>>,
    cache: KvCache<B>,
    generated: Generated,
}

impl<B: VlmBackend> Begun<B> {
    /// How many tokens at the beginning of `embeds` are those of this prompt, without the last one: it gives the logits.
    fn shared(&self, embeds: &Tensor<B, 3>) -> usize {
        let Some(own) = &self.embeds else { return 0 };
        let length = own.dims()[1].min(embeds.dims()[1] - 1);
        if length == 0 {
            return 0;
        }
        // Compared as numbers, so that there is no key that could go stale.
        let equal = own.clone().narrow(1, 0, length).equal(embeds.clone().narrow(1, 0, length));
        let equal = equal.int().sum_dim(2).flatten::<1>(0, 2).into_data().convert::<i64>().into_vec::<i64>();
        let hidden = embeds.dims()[2] as i64;
        equal.unwrap_or_default().iter().take_while(|&&count| count == hidden).count()
    }
}

/// Reads a prompt. `inside` drops visual tokens on the way through the language model, down to so many; else what the
/// prompt has in common with the beginning of `before` is not computed again.
///
/// # Errors
/// When the prompt is longer than the model reads, or `inside` cannot keep as many tokens as asked for.
pub fn begin<B: VlmBackend>(
    model: &Llava<B>,
    prompt: Spliced<B>,
    inside: Option<(&dyn LayerPruner<B>, usize)>,
    decoding: Decoding,
    before: Option<&Begun<B>>,
) -> Result<Begun<B>, Error> {
    let Spliced { embeds, visual } = prompt;
    let length = embeds.dims()[1];
    let mut cache = model.cache(length, decoding.max_new_tokens)?;
    let start = Instant::now();
    let (first_logits, kept, shared) = match inside {
        None => {
            let shared = before.map_or(0, |before| before.shared(&embeds));
            if let Some(before) = before.filter(|_| shared > 0) {
                cache.start_with(&before.cache, shared);
            }
            let rest = embeds.clone().narrow(1, shared, length - shared);
            (model.logits(rest, &mut cache), None, shared)
        }
        Some((pruner, budget)) => {
            let cut = LayerCut { pruner, visual: &visual, budget };
            let (logits, kept) = model.logits_cut(embeds.clone(), &mut cache, &cut)?;
            (logits, Some(kept), 0)
        }
    };
    let embeds = kept.is_none().then_some(embeds);
    let generated = Generated {
        ids: Vec::new(),
        first_logits,
        prompt: length,
        shared,
        kept,
        prefill: start.elapsed(),
        decode: std::time::Duration::ZERO,
        steps: 0,
    };
    Ok(Begun { embeds, cache, generated })
}

/// Once for each prompt: continues them until each has its end token, the longest answer, or `on_token` breaks; it is given the prompt's number
/// and all ids so far after each new one. Every weight is read once for the next tokens of all of them.
pub fn decode<B: VlmBackend>(
    model: &Llava<B>,
    begun: &mut [Begun<B>],
    decoding: Decoding,
    mut on_token: impl FnMut(usize, &[u32]) -> ControlFlow<()>,
) -> Vec<Generated> {
    let Decoding { max_new_tokens: limit, sampling, end } = decoding;
    let start = Instant::now();
    let mut choosers: Vec<Chooser> = begun.iter().map(|_| Chooser::new(sampling)).collect();
    let mut logits: Vec<(usize, Vec<f32>)> =
        begun.iter().enumerate().map(|(i, begun)| (i, begun.generated.first_logits.clone())).collect();
    loop {
        let mut next = Vec::new();
        for (i, logits) in logits {
            let Begun { cache, generated, .. } = &mut begun[i];
            let id = choosers[i].choose(&logits);
            let goes_on = generated.ids.len() < limit && id != end;
            if goes_on {
                generated.ids.push(id);
            }
            let full = || generated.ids.len() == limit || cache.len() == cache.capacity();
            if goes_on && on_token(i, &generated.ids).is_continue() && !full() {
                generated.steps += 1;
                next.push((i, id));
            } else {
                generated.decode = start.elapsed();
            }
        }
        if next.is_empty() {
            return begun.iter().map(|begun| begun.generated.clone()).collect();
        }
        let mut going = next.iter().map(|(i, _)| *i).peekable();
        let caches = begun.iter_mut().enumerate().filter(|(i, _)| going.next_if_eq(i).is_some());
        let mut caches: Vec<&mut KvCache<B>> = caches.map(|(_, begun)| &mut begun.cache).collect();
        let ids: Vec<u32> = next.iter().map(|(_, id)| *id).collect();
        let found = model.next_logits(&ids, &mut caches);
        logits = next.iter().map(|(i, _)| *i).zip(found).collect();
    }
}

/// Continues `prompt` until the end token, the longest answer, or until `on_token` breaks; it sees all ids so far after
/// each new one. `inside` drops visual tokens on the way through the language model, down to so many.
///
/// # Errors
/// As [`begin`].
pub fn generate<B: VlmBackend>(
    model: &Llava<B>,
    prompt: Spliced<B>,
    inside: Option<(&dyn LayerPruner<B>, usize)>,
    decoding: Decoding,
    mut on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let begun = begin(model, prompt, inside, decoding, None)?;
    Ok(decode(model, &mut [begun], decoding, |_, ids| on_token(ids)).swap_remove(0))
}
