//! A question whose budget the reader chooses: what each method keeps at each budget, and what the model answers then.

use secateur_backends::VlmBackend;
use serde::Serialize;

use super::{
    html::data_address,
    runs::{Group, Stored},
};
use crate::{
    engine::{Decoding, answer, go_on, kept},
    model::Model,
    pruner::selector,
    text::{Prompt, strip},
    video::Media,
};

/// The budgets of the slider, as far as an item has so many tokens.
const BUDGETS: [usize; 9] = [384, 288, 192, 128, 96, 64, 48, 32, 16];
/// The largest number of methods, so that a report does not take longer than its runs.
const METHODS: usize = 4;

/// A question with its slider.
#[derive(Serialize)]
pub(super) struct Slide {
    #[serde(skip)]
    pub(super) question: String,
    #[serde(skip)]
    pub(super) methods: Vec<String>,
    /// The image as the model sees it, as a `data:` address.
    image: String,
    /// Rows and columns of patches.
    grid: [usize; 2],
    /// For each method, the largest budget first.
    pub(super) steps: Vec<Vec<Step>>,
}

/// The tokens that are kept at a budget, and the answer.
#[derive(Serialize)]
pub(super) struct Step {
    tokens: usize,
    /// The kept patches; none where all are kept.
    kept: Option<Vec<usize>>,
    answer: String,
}

/// The slider of a question about one image that is one item; `None` for others.
pub(super) fn slide<B: VlmBackend>(
    model: &Model<B>,
    media: &Media,
    (prompt, asked): (&Prompt, &str),
    group: &Group,
) -> anyhow::Result<Option<Slide>> {
    let shown = model.vlm().shown(media, None);
    let (Media::Image(_), [item]) = (media, &shown.items[..]) else { return Ok(None) };
    let mut runs: Vec<&Stored> = Vec::new();
    for run in group.runs.iter().filter(|run| run.config.kept().is_some()) {
        if runs.len() < METHODS && runs.iter().all(|other| other.method() != run.method()) {
            runs.push(run);
        }
    }
    let (mut steps, mut grid) = (Vec::new(), model.grid());
    for run in &runs {
        let selector = selector::<B>(&run.config.method, run.params())?;
        let mut own = Vec::new();
        let all = grid.tokens();
        let budgets = BUDGETS.into_iter().filter(|budget| *budget < all).map(Some);
        for tokens in std::iter::once(None).chain(budgets) {
            let decoding = Decoding::greedy(group.task.card().max_new_tokens.min(16));
            let media = std::slice::from_ref(media);
            let (seen, generated) = answer(model, media, prompt, &selector, tokens.map(Into::into), decoding, go_on)?;
            if seen[0].tiles.is_some() {
                return Ok(None);
            }
            grid = seen[0].grid;
            let answer = strip(&model.tokenizer().decode(&generated.ids)).to_owned();
            let kept = tokens.map(|_| kept(&seen, &generated).0.swap_remove(0));
            own.push(Step { tokens: tokens.unwrap_or(grid.tokens()), kept, answer });
        }
        steps.push(own);
    }
    Ok(Some(Slide {
        question: asked.to_owned(),
        methods: runs.iter().map(|run| run.method()).collect(),
        image: data_address(item),
        grid: [grid.rows, grid.columns],
        steps,
    }))
}
