//! Requests to a model, and their answers.

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
    model::{EmbeddedPrompt, Model, Scores, VisualTokens},
    pruner::{Budget, LayerPruner, NoPruning, Pruner, Selector},
    text::Prompt,
};

/// Settings for decoding an answer.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// Largest number of tokens of an answer.
    pub max_new_tokens: usize,
    /// The rule that chooses the next token.
    pub sampling: Sampling,
    /// Whether an end token ends the answer; an end token is no part of the answer.
    pub stops: bool,
    /// The factor by which tokens become less likely that are in the prompt or in the answer already, as in transformers' `generate`; 1 changes nothing.
    pub repetition_penalty: f32,
}

impl Decoding {
    /// Settings that choose the best token at every step.
    pub fn greedy(max_new_tokens: usize) -> Self {
        Self { max_new_tokens, sampling: Sampling::Greedy, stops: true, repetition_penalty: 1.0 }
    }
}

/// Tells an engine that nobody waits for an answer any more, from any thread.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Cancels the request, which ends before the next step. Its prefill ends before the next layer, unless others wait for the same pass.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the request was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A question about images and videos, with the method, the budget and the settings for its answer.
pub struct Request<'r, B: VlmBackend> {
    /// The images and videos, in the order of their placeholders.
    pub media: Vec<Media<B>>,
    /// The question.
    pub prompt: Prompt,
    /// The method that drops tokens.
    pub selector: &'r Selector<B>,
    /// The number of tokens of each item to keep; all without a budget.
    pub budget: Option<Budget>,
    /// Settings for decoding the answer.
    pub decoding: Decoding,
    /// Number that picks the answer's random numbers among those of the seed, where tokens are drawn: questions with equal random numbers would all
    /// get likely answers, or all unlikely ones.
    pub draw: u64,
    /// Switch that ends the request early.
    pub cancel: Cancel,
    /// Whether the scores by which the method ranks patches are wanted: [`Answered::scores`](super::Answered::scores).
    pub scores: bool,
}

/// A request whose media are in its prompt.
pub(super) struct Placed<'r, B: VlmBackend> {
    pub(super) prompt: EmbeddedPrompt<B>,
    /// The ids of the prompt, where repetition has a penalty.
    pub(super) ids: Vec<u32>,
    pub(super) visual: Vec<VisualTokens<B>>,
    pub(super) scores: Vec<Option<Scores>>,
    /// The method that drops visual tokens inside the decoder, and the number of them to keep.
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
        Self { media, prompt, selector, budget, decoding, draw: 0, cancel: Cancel::default(), scores: false }
    }

    /// An upper bound of the tokens that the request takes in the cache, answer included.
    pub(super) fn longest(&self, model: &Model<B>) -> usize {
        let limit = model.decoder_config().max_position_embeddings;
        let visual: usize = self.media.iter().map(|media| media.most_tokens(model)).sum();
        (self.prompt.ids.len() + visual + self.decoding.max_new_tokens.min(limit)).min(limit)
    }

    /// Encodes and prunes the media, and puts them into the prompt.
    ///
    /// # Errors
    /// When the prompt is too long, media cannot be encoded, or the budget cannot be kept.
    pub(super) fn place(self, model: &Model<B>, encoder: &mut EncoderCache<B>) -> Result<Placed<'r, B>, Error> {
        // Refuses a prompt that is far too long before anything is computed for it: every placeholder stands for one token at least.
        model.check_length(self.prompt.ids.len())?;
        let Self { media, prompt, selector, budget, decoding, draw, cancel, scores: wants_scores } = self;
        let method = selector.method();
        let whole = NoPruning { tiling: method.card().tiling, class: method.keeps_class() };
        let (pruner, inside): (&dyn Pruner<B>, _) = match selector {
            Selector::Before(pruner) => (&**pruner, None),
            Selector::Inside(pruner) => (&whole, Some(&**pruner)),
        };
        let (mut placeholder, mut kinds) = (0, [false; 2]);
        let mut visual = Vec::with_capacity(media.len());
        let mut scores = Vec::new();
        for media in &media {
            let encoded = encoder.encode(model, media, method.card().tiling, pruner.card().needs)?;
            let before = budget.filter(|_| inside.is_none());
            visual.push(model.prune(&encoded, pruner, before, &prompt, placeholder)?);
            if wants_scores {
                scores.push(model.scores(&encoded, pruner, &prompt, placeholder)?);
            }
            placeholder += encoded.placeholders();
            kinds[usize::from(encoded.is_video())] = true;
        }
        let ids = if decoding.repetition_penalty == 1.0 { Vec::new() } else { model.ids_of(&prompt, kinds) };
        let prompt = model.place(&prompt, &visual);
        let rows = prompt.embeds.dims()[1];
        model.check_length(rows)?;
        // A slow video may take more positions than tokens.
        model.check_length(prompt.positions.end(rows))?;
        // A question without an image has nothing to drop.
        let inside = match inside.zip(budget).filter(|_| !prompt.visual.is_empty()) {
            // The budget of a method inside the decoder is per item too, and spent on all items together.
            Some((pruner, budget)) => {
                let of_media = |visual: &VisualTokens<B>| {
                    model.budget(budget, visual.grid.tokens()).map(|tokens| tokens * visual.keep.indices().len())
                };
                let total: usize = visual.iter().map(of_media).sum::<Result<usize, Error>>()?;
                Some((pruner, total.min(prompt.visual.len())))
            }
            None => None,
        };
        Ok(Placed { prompt, ids, visual, scores, inside, decoding, draw, cancel })
    }
}

/// The reason why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model gave an end token.
    End,
    /// The answer is as long as it may be, or the context is full.
    Length,
    /// The caller ended it.
    Caller,
}

/// An answer, token by token.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Token ids, without the end token.
    pub ids: Vec<u32>,
    /// The logits of the first position, the whole vocabulary.
    pub first_logits: Vec<f32>,
    /// Length of the prompt, visual tokens included.
    pub prompt: usize,
    /// The number of the prompt's tokens that were taken over from a prompt before.
    pub shared: usize,
    /// The visual tokens that were kept inside the decoder, as indices into [`EmbeddedPrompt::visual`]; `None` where
    /// nothing was dropped there.
    pub kept: Option<Vec<usize>>,
    /// Time to the first token; for prompts that were read together, the time for all of them.
    pub prefill: Duration,
    /// Time for the tokens after the first.
    pub decode: Duration,
    /// The reason why it ended.
    pub finish: Finish,
    /// Number of forward passes after the prefill; the last may have given the end token.
    pub steps: usize,
}

impl Generated {
    /// An answer before its first token.
    pub(super) fn unanswered(first_logits: Vec<f32>, prompt: usize, prefill: Duration) -> Self {
        let (ids, kept, decode) = (Vec::new(), None, Duration::ZERO);
        let finish = Finish::Caller;
        Self { ids, first_logits, prompt, shared: 0, kept, prefill, decode, finish, steps: 0 }
    }

    /// Tokens a second after the first, the end token counted; `None` if there was only one.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.steps as f64 / self.decode.as_secs_f64())
    }
}
