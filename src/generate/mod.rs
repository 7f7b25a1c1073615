//! Answers: pictures or videos and a prompt in, tokens out.

mod choose;
mod decode;
mod stream;

use std::{ops::ControlFlow, time::Duration};

pub use choose::Sampling;
pub use decode::{Asked, Begun, Reuse, begin, decode, generate};
use secateur_backends::VlmBackend;
pub use stream::Stream;

use crate::{
    Error,
    model::{EncodedMedia, Model, VisualTokens},
    pruner::{Needs, NoPruning, Pruner, Selector},
    sequence::Visual,
    text::Prompt,
    video::Media,
};

/// For those who want an answer to its end, whatever its tokens are.
pub fn go_on(_: &[u32]) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

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

/// An answer, token by token.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Token ids, without the end token.
    pub ids: Vec<u32>,
    /// The logits of the first position, the whole vocabulary.
    pub first_logits: Vec<f32>,
    /// Prompt length, visual tokens included.
    pub prompt: usize,
    /// How many of these were taken over from the prompt before.
    pub shared: usize,
    /// The visual tokens that were kept inside the language model, as indices into [`crate::model::EmbeddedPrompt::visual`]; `None` where
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
    fn unanswered(first_logits: Vec<f32>, prompt: usize, prefill: Duration) -> Self {
        let (ids, kept, decode) = (Vec::new(), None, Duration::ZERO);
        Self { ids, first_logits, prompt, shared: 0, kept, prefill, decode, steps: 0 }
    }

    /// Tokens a second after the first, the end token counted; `None` if there was only one.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.steps as f64 / self.decode.as_secs_f64())
    }
}

/// Looks at `media`, prunes them as `selector` does to `budget` tokens a crop (all without one), and answers.
///
/// # Errors
/// As [`looks`] and [`answer_about`].
pub fn answer<B: VlmBackend>(
    model: &Model<B>,
    media: &[Media],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<usize>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<B>>, Generated), Error> {
    answer_about(model, &looks(model, media, selector)?, prompt, selector, budget, decoding, on_token)
}

/// What `selector` must know of `media`, for any number of questions about them.
///
/// # Errors
/// As [`Llava::encode_media`].
pub fn looks<B: VlmBackend>(
    model: &Model<B>,
    media: &[Media],
    selector: &Selector<B>,
) -> Result<Vec<EncodedMedia<B>>, Error> {
    let method = selector.method();
    // A method inside the language model leaves the tower's output alone.
    let needs = match selector {
        Selector::Before(_) => method.needs(),
        Selector::Inside(_) => Needs::default(),
    };
    media.iter().map(|media| model.encode_media(media, method.tiling(), needs)).collect()
}

/// [`answer`] for pictures that were looked at before.
///
/// # Errors
/// As [`ask_about`] and [`begin`].
pub fn answer_about<B: VlmBackend>(
    model: &Model<B>,
    looks: &[EncodedMedia<B>],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<usize>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<B>>, Generated), Error> {
    let (seen, asked) = ask_about(model, looks, prompt, selector, budget)?;
    Ok((seen, generate(model, asked, decoding, on_token)?))
}

/// Prunes pictures that were looked at, and puts them into the prompt.
///
/// # Errors
/// As [`Llava::prune`].
pub fn ask_about<'a, B: VlmBackend>(
    model: &Model<B>,
    looks: &[EncodedMedia<B>],
    prompt: &Prompt,
    selector: &'a Selector<B>,
    budget: Option<usize>,
) -> Result<(Vec<VisualTokens<B>>, Asked<'a, B>), Error> {
    // Before anything is computed for a prompt that is far too long: every mark stands for one token at least.
    model.check_length(prompt.ids.len())?;
    let method = selector.method();
    let whole = NoPruning { tiling: method.tiling(), class: method.keeps_class() };
    let (pruner, inside): (&dyn Pruner<B>, _) = match selector {
        Selector::Before(pruner) => (&**pruner, None),
        Selector::Inside(pruner) => (&whole, Some(&**pruner)),
    };
    let mut mark = 0;
    let mut seen = Vec::with_capacity(looks.len());
    for look in looks {
        seen.push(model.prune(look, pruner, budget.filter(|_| inside.is_none()), prompt, mark)?);
        mark += look.placeholders();
    }
    let prompt = model.place(prompt, &seen);
    // Its budget is per crop too, and spent on all crops together.
    let crops: usize = seen.iter().map(|seen| seen.keep.indices().len()).sum();
    let inside = inside
        .zip(budget)
        // Of a question without a picture there is nothing to drop.
        .filter(|_| !prompt.visual.is_empty())
        .map(|(pruner, budget)| (pruner, (crops * budget).min(prompt.visual.len())));
    Ok((seen, Asked { prompt, inside, draw: 0 }))
}

/// What became of the pictures in the end, for a method that prunes inside the language model too: the kept patches of
/// every crop of every picture, and how many visual tokens there are.
pub fn kept<B: VlmBackend>(seen: &[VisualTokens<B>], generated: &Generated) -> (Vec<Vec<usize>>, usize) {
    let Some(inside) = &generated.kept else {
        let crops = seen.iter().flat_map(|seen| seen.keep.indices().to_vec()).collect();
        return (crops, seen.iter().map(|seen| seen.order.len()).sum());
    };
    let mut crops = Vec::new();
    let mut first = 0;
    for seen in seen {
        let mut own = vec![Vec::new(); seen.keep.indices().len()];
        let here = inside.iter().filter_map(|&i| i.checked_sub(first)).filter(|&i| i < seen.order.len());
        here.for_each(|i| {
            if let Visual::Patch { crop, patch } = seen.order[i] {
                own[crop].push(patch);
            }
        });
        own.iter_mut().for_each(|crop| crop.sort_unstable());
        crops.extend(own);
        first += seen.order.len();
    }
    (crops, inside.len())
}
