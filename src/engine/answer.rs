//! Answering one request from its beginning to its end.

use std::ops::ControlFlow;

use secateur_backends::VlmBackend;

use super::{Decoding, Encoded, Engine, Event, Generated, Limits, Media, Request};
use crate::{
    Error,
    model::{Model, Scores, VisualTokens},
    pruner::{Budget, Selector},
    sequence::Visual,
    text::Prompt,
    video,
};

/// An answer, and the visual tokens that the decoder read.
#[derive(Clone, Debug)]
pub struct Answered<B: VlmBackend> {
    /// The visual tokens of each image or video.
    pub visual: Vec<VisualTokens<B>>,
    /// The scores by which the method ranks the patches of each image or video, where the request asks for them and the method has some.
    pub scores: Vec<Option<Scores>>,
    /// The answer.
    pub generated: Generated,
}

/// Lets an answer go on after every token: the `on_token` of callers that want it to its end.
pub fn go_on(_: &[u32]) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Encodes `media`, prunes them as `selector` does to `budget` tokens an item (all without one), and answers. `on_token` sees all ids so far
/// after each new one, and says whether the answer goes on.
///
/// # Errors
/// When media cannot be encoded, the prompt is too long, the budget cannot be kept, or numbers are not finite.
pub fn answer<B: VlmBackend>(
    model: &Model<B>,
    media: &[video::Media],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<Budget>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<B>>, Generated), Error> {
    let media = media.iter().map(|media| media.clone().into()).collect();
    alone(model, Request::new(media, prompt.clone(), selector, budget, decoding), on_token)
}

/// Answers as [`answer`] does, for media that were encoded before, with all that the method needs.
///
/// # Errors
/// As [`answer`].
pub fn answer_encoded<B: VlmBackend>(
    model: &Model<B>,
    media: &[Encoded<B>],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<Budget>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<B>>, Generated), Error> {
    let media = media.iter().map(|media| Media::Encoded(media.clone())).collect();
    alone(model, Request::new(media, prompt.clone(), selector, budget, decoding), on_token)
}

/// Answers a request in an engine of its own.
fn alone<'m, B: VlmBackend>(
    model: &'m Model<B>,
    request: Request<'m, B>,
    mut on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<B>>, Generated), Error> {
    let mut engine = Engine::new(model, Limits::default().without_reuse());
    engine.submit(request);
    let mut found = Err(Error::Cancelled);
    engine.run(&mut |event| match event {
        Event::Token { ids, .. } => on_token(ids),
        Event::Ended { outcome, .. } => {
            found = outcome;
            ControlFlow::Break(())
        }
    });
    found.map(|Answered { visual, generated, .. }| (visual, generated))
}

/// The visual tokens that were kept in the end, for a method that prunes inside the decoder too: the kept tokens of every item of every image or
/// video, and the number of visual tokens in all.
pub fn kept<B: VlmBackend>(media: &[VisualTokens<B>], generated: &Generated) -> (Vec<Vec<usize>>, usize) {
    let Some(inside) = &generated.kept else {
        let items = media.iter().flat_map(|tokens| tokens.keep.indices().to_vec()).collect();
        return (items, media.iter().map(|tokens| tokens.order.len()).sum());
    };
    let mut items = Vec::new();
    let mut first = 0;
    for tokens in media {
        let mut own = vec![Vec::new(); tokens.keep.indices().len()];
        let here = inside.iter().filter_map(|&i| i.checked_sub(first)).filter(|&i| i < tokens.order.len());
        here.for_each(|i| {
            if let Visual::Patch { crop, patch } = tokens.order[i] {
                own[crop].push(patch);
            }
        });
        own.iter_mut().for_each(|item| item.sort_unstable());
        items.extend(own);
        first += tokens.order.len();
    }
    (items, inside.len())
}
