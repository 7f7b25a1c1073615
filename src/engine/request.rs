//! What is asked of a model, and what comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use secateur_backends::VlmBackend;

use super::{Media, Sampling, encoder::EncoderCache};
use crate::{
    Error,
    model::{EmbeddedPrompt, Model, VisualTokens},
    pruner::{Budget, LayerPruner, NoPruning, Pruner, Selector},
    text::Prompt,
};

/// How an answer is made.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// The longest answer.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// Whether a token that ends an answer does so; it is no part of the answer.
    pub stops: bool,
}

impl Decoding {
    /// The best token at every step.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, sampling: Sampling::Greedy, stops: true }
    }
}

/// Tells an engine that nobody waits for an answer any more, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// The request ends in the step that runs, or between two layers of its prefill.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A question about images and videos, and how it is to be answered.
pub struct Request<'r, B: VlmBackend> {
    /// The images and videos, in the order of their placeholders.
    pub media: Vec<Media<B>>,
    /// The question.
    pub prompt: Prompt,
    /// The method that drops tokens.
    pub selector: &'r Selector<B>,
    /// How many tokens of each item stay; all without one.
    pub budget: Option<Budget>,
    /// How the answer is made.
    pub decoding: Decoding,
    /// Which random numbers of the seed are its answer's, where tokens are drawn: questions that had the same ones would all be
    /// answered likely, or all unlikely.
    pub draw: u64,
    /// Ends it early.
    pub cancel: Cancel,
}

/// A request whose media are in its prompt.
pub(super) struct Placed<'r, B: VlmBackend> {
    pub(super) prompt: EmbeddedPrompt<B>,
    pub(super) visual: Vec<VisualTokens<B>>,
    /// What drops visual tokens on the way through the decoder, down to so many.
    pub(super) inside: Option<(&'r dyn LayerPruner<B>, usize)>,
    pub(super) decoding: Decoding,
    pub(super) draw: u64,
    pub(super) cancel: Cancel,
}

impl<'r, B: VlmBackend> Request<'r, B> {
    /// A question that is answered without random numbers.
    pub fn new(
        media: Vec<Media<B>>,
        prompt: Prompt,
        selector: &'r Selector<B>,
        budget: Option<Budget>,
        decoding: Decoding,
    ) -> Self {
        Self { media, prompt, selector, budget, decoding, draw: 0, cancel: Cancel::default() }
    }

    /// An upper bound of the tokens that it takes in the cache, answer included.
    pub(super) fn longest(&self, model: &Model<B>) -> usize {
        let limit = model.decoder_config().max_position_embeddings;
        let items: usize = self.media.iter().map(|media| media.most_items(model)).sum();
        let visual = items * model.grid().tokens();
        (self.prompt.ids.len() + visual + self.decoding.max_new_tokens.min(limit)).min(limit)
    }

    /// Encodes and prunes the media, and puts them into the prompt.
    ///
    /// # Errors
    /// When the prompt is too long, media cannot be encoded, or the budget cannot be kept.
    pub(super) fn place(self, model: &Model<B>, encoder: &mut EncoderCache<B>) -> Result<Placed<'r, B>, Error> {
        // Before anything is computed for a prompt that is far too long: every placeholder stands for one token at least.
        model.check_length(self.prompt.ids.len())?;
        let Self { media, prompt, selector, budget, decoding, draw, cancel } = self;
        let method = selector.method();
        let whole = NoPruning { tiling: method.card().tiling, class: method.keeps_class() };
        let (pruner, inside): (&dyn Pruner<B>, _) = match selector {
            Selector::Before(pruner) => (&**pruner, None),
            Selector::Inside(pruner) => (&whole, Some(&**pruner)),
        };
        let mut placeholder = 0;
        let mut visual = Vec::with_capacity(media.len());
        for media in &media {
            let encoded = encoder.encode(model, media, method.card().tiling, pruner.card().needs)?;
            let before = budget.filter(|_| inside.is_none());
            visual.push(model.prune(&encoded, pruner, before, &prompt, placeholder)?);
            placeholder += encoded.placeholders();
        }
        let prompt = model.place(&prompt, &visual);
        model.check_length(prompt.embeds.dims()[1])?;
        // Of a question without an image there is nothing to drop.
        let inside = match inside.zip(budget).filter(|_| !prompt.visual.is_empty()) {
            // Its budget is per item too, and spent on all items together.
            Some((pruner, budget)) => {
                let of_media = |visual: &VisualTokens<B>| {
                    budget.of(visual.grid.tokens()).map(|tokens| tokens * visual.keep.indices().len())
                };
                let total: usize = visual.iter().map(of_media).sum::<Result<usize, Error>>()?;
                Some((pruner, total.min(prompt.visual.len())))
            }
            None => None,
        };
        Ok(Placed { prompt, visual, inside, decoding, draw, cancel })
    }
}

/// An answer, token by token.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Token ids, without the end token.
    pub ids: Vec<u32>,
    /// The logits of the first position, the whole vocabulary.
    pub first_logits: Vec<f32>,
    /// Prompt length, visual tokens included.
    pub prompt: usize,
    /// How many of these were taken over from a prompt before.
    pub shared: usize,
    /// The visual tokens that were kept inside the decoder, as indices into [`EmbeddedPrompt::visual`]; `None` where
    /// nothing was dropped there.
    pub kept: Option<Vec<usize>>,
    /// Time to the first token; of prompts that were read together, that of all.
    pub prefill: Duration,
    /// Time for the rest.
    pub decode: Duration,
    /// Forward passes in that time; the last may have given the end token.
    pub steps: usize,
}

impl Generated {
    /// Before its first token.
    pub(super) fn unanswered(first_logits: Vec<f32>, prompt: usize, prefill: Duration) -> Self {
        let (ids, kept, decode) = (Vec::new(), None, Duration::ZERO);
        Self { ids, first_logits, prompt, shared: 0, kept, prefill, decode, steps: 0 }
    }

    /// Tokens a second after the first, the end token counted; `None` if there was only one.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.steps as f64 / self.decode.as_secs_f64())
    }
}
