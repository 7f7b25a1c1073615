//! Prefill, then one token at a time.

use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use secateur_backends::VlmBackend;

use crate::{
    Error,
    image::Rgb,
    merge::Visual,
    model::{LayerCut, Llava, Look, Seen, Spliced},
    pruner::{LayerPruner, Needs, NoPruning, Pruner, Selector},
    text::Prompt,
};

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    /// The best one; of equals, the first.
    Greedy,
    /// Drawn from the softmax at `temperature`, among the best that together have `top_p` of it.
    Random {
        /// Above 0; higher is flatter.
        temperature: f32,
        /// In (0, 1]; 1 leaves nothing out.
        top_p: f32,
        /// The same seed gives the same answer.
        seed: u64,
    },
}

/// How an answer is made.
#[derive(Clone, Copy, Debug)]
pub struct Decoding {
    /// The longest answer.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// The token that ends an answer and is no part of it.
    pub end: u32,
}

impl Decoding {
    /// The best token at every step.
    pub fn greedy(max_new_tokens: usize, end: u32) -> Self {
        Self { max_new_tokens, sampling: Sampling::Greedy, end }
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
    /// The visual tokens that were kept inside the language model, as indices into [`Spliced::visual`]; `None` where
    /// nothing was dropped there.
    pub kept: Option<Vec<usize>>,
    /// Time to the first token.
    pub prefill: Duration,
    /// Time for the rest.
    pub decode: Duration,
    /// Forward passes in that time; the last may have given the end token.
    pub steps: usize,
}

impl Generated {
    /// Tokens a second after the first, the end token counted; `None` if there was only one.
    pub fn tokens_per_second(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.steps as f64 / self.decode.as_secs_f64())
    }
}

/// Looks at `pictures`, prunes them as `selector` does to `budget` tokens a crop (all without one), and answers.
///
/// # Errors
/// As [`answer_about`].
pub fn answer<B: VlmBackend>(
    model: &Llava<B>,
    pictures: &[Rgb],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<usize>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<Seen<B>>, Generated), Error> {
    answer_about(model, &looks(model, pictures, selector), prompt, selector, budget, decoding, on_token)
}

/// What `selector` must know of `pictures`, for any number of questions about them.
pub fn looks<B: VlmBackend>(model: &Llava<B>, pictures: &[Rgb], selector: &Selector<B>) -> Vec<Look<B>> {
    let method = selector.method();
    // A method inside the language model leaves the tower's output alone.
    let needs = match selector {
        Selector::Before(_) => method.needs(),
        Selector::Inside(_) => Needs::default(),
    };
    pictures.iter().map(|picture| model.look_at(picture, method.tiling(), needs)).collect()
}

/// [`answer`] for pictures that were looked at before.
///
/// # Errors
/// As [`Llava::prune`] and [`generate`].
pub fn answer_about<B: VlmBackend>(
    model: &Llava<B>,
    looks: &[Look<B>],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<usize>,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<Seen<B>>, Generated), Error> {
    let whole = NoPruning { tiling: selector.method().tiling() };
    let (before, inside): (&dyn Pruner<B>, _) = match selector {
        Selector::Before(pruner) => (&**pruner, None),
        Selector::Inside(pruner) => (&whole, Some(&**pruner)),
    };
    let see = |(i, look)| model.prune(look, before, budget.filter(|_| inside.is_none()), prompt, i);
    let seen = looks.iter().enumerate().map(see).collect::<Result<Vec<_>, _>>()?;
    let spliced = model.splice(prompt, &seen);
    // Its budget is per crop too, and spent on all crops together.
    let crops: usize = seen.iter().map(|seen| seen.keep.indices().len()).sum();
    let inside = inside.zip(budget).map(|(pruner, budget)| (pruner, (crops * budget).min(spliced.visual.len())));
    let generated = generate(model, spliced, inside, decoding, on_token)?;
    Ok((seen, generated))
}

/// What became of the pictures in the end, for a method that prunes inside the language model too: the kept patches of
/// every crop of every picture, and how many visual tokens there are.
pub fn kept<B: VlmBackend>(seen: &[Seen<B>], generated: &Generated) -> (Vec<Vec<usize>>, usize) {
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

/// Continues `prompt` until the end token, the longest answer, or until `on_token` breaks; it sees all ids so far after
/// each new one. `inside` drops visual tokens on the way through the language model, down to so many.
///
/// # Errors
/// When the prompt is longer than the model reads, or `inside` cannot keep as many tokens as asked for.
pub fn generate<B: VlmBackend>(
    model: &Llava<B>,
    prompt: Spliced<B>,
    inside: Option<(&dyn LayerPruner<B>, usize)>,
    decoding: Decoding,
    mut on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<Generated, Error> {
    let Decoding { max_new_tokens: limit, sampling, end } = decoding;
    let length = prompt.embeds.dims()[1];
    let mut cache = model.cache(length, limit)?;
    let mut chooser = Chooser::new(sampling);
    let start = Instant::now();
    let (first_logits, kept) = match inside {
        None => (model.logits(prompt.embeds, &mut cache), None),
        Some((pruner, budget)) => {
            let cut = LayerCut { pruner, visual: &prompt.visual, budget };
            let (logits, kept) = model.logits_cut(prompt.embeds, &mut cache, &cut)?;
            (logits, Some(kept))
        }
    };
    let prefill = start.elapsed();
    let mut ids = Vec::new();
    let mut next = chooser.choose(&first_logits);
    let mut steps = 0;
    while ids.len() < limit && next != end {
        ids.push(next);
        if on_token(&ids).is_break() || ids.len() == limit || cache.len() == cache.capacity() {
            break;
        }
        let logits = model.logits(model.embed(&[next]), &mut cache);
        next = chooser.choose(&logits);
        steps += 1;
    }
    Ok(Generated { ids, first_logits, prompt: length, kept, prefill, decode: start.elapsed() - prefill, steps })
}

struct Chooser {
    sampling: Sampling,
    random: StdRng,
}

impl Chooser {
    fn new(sampling: Sampling) -> Self {
        let seed = if let Sampling::Random { seed, .. } = sampling { seed } else { 0 };
        Self { sampling, random: StdRng::seed_from_u64(seed) }
    }

    fn choose(&mut self, logits: &[f32]) -> u32 {
        match self.sampling {
            Sampling::Greedy => argmax(logits),
            Sampling::Random { temperature, top_p, .. } => self.draw(logits, temperature, top_p),
        }
    }

    fn draw(&mut self, logits: &[f32], temperature: f32, top_p: f32) -> u32 {
        let best = logits[argmax(logits) as usize];
        let mut chances: Vec<(u32, f64)> =
            (0..).zip(logits).map(|(id, &l)| (id, f64::from((l - best) / temperature).exp())).collect();
        chances.sort_by(|a, b| b.1.total_cmp(&a.1));
        let total: f64 = chances.iter().map(|(_, chance)| chance).sum();
        // The nucleus: the fewest best tokens that reach top_p, the one that crosses it included.
        let mut reached = 0.0;
        let nucleus = chances.iter().take_while(|(_, chance)| {
            let before = reached;
            reached += chance / total;
            before < f64::from(top_p)
        });
        let nucleus: Vec<_> = nucleus.copied().collect();
        let mut left = self.random.random::<f64>() * nucleus.iter().map(|(_, chance)| chance).sum::<f64>();
        for &(id, chance) in &nucleus {
            left -= chance;
            if left < 0.0 {
                return id;
            }
        }
        nucleus[0].0
    }
}

fn argmax(values: &[f32]) -> u32 {
    let best = (0u32..).zip(values).max_by(|(i, a), (j, b)| (*a + 0.0).total_cmp(&(*b + 0.0)).then(j.cmp(i)));
    best.map_or(0, |(index, _)| index)
}

/// Prints an answer as it grows: what is decodable of `ids` beyond what was already given out.
#[derive(Debug, Default)]
pub struct Stream {
    shown: usize,
}

impl Stream {
    /// The new part of the text of `ids`; characters whose bytes are still incomplete wait.
    pub fn push<B: VlmBackend>(&mut self, model: &Llava<B>, ids: &[u32]) -> String {
        let text = model.tokenizer().decode(ids);
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        let new = whole.get(self.shown..).unwrap_or_default().to_owned();
        self.shown = self.shown.max(whole.len());
        new
    }

    /// What is left at the end of `text`.
    pub fn finish(&self, text: &str) -> String {
        text.get(self.shown..).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_first_of_equals() {
        assert_eq!(argmax(&[0.5, 2.0, 2.0, -1.0]), 1);
    }

    #[test]
    fn a_seed_decides_the_draw() {
        let logits = [0.0, 1.0, 0.5, 0.2];
        let draws = |seed| {
            let mut chooser = Chooser::new(Sampling::Random { temperature: 1.0, top_p: 1.0, seed });
            (0..20).map(|_| chooser.choose(&logits)).collect::<Vec<_>>()
        };
        assert_eq!(draws(1), draws(1));
        assert_ne!(draws(1), draws(2));
    }

    #[test]
    fn the_nucleus_leaves_out_the_tail() {
        // Chances 0.64, 0.24, 0.09, 0.03: the first two are the fewest that reach 0.7.
        let logits = [4.0, 3.0, 2.0, 1.0];
        let mut chooser = Chooser::new(Sampling::Random { temperature: 1.0, top_p: 0.7, seed: 7 });
        let draws: Vec<u32> = (0..200).map(|_| chooser.choose(&logits)).collect();
        assert!(draws.contains(&0) && draws.contains(&1));
        assert!(draws.iter().all(|&id| id < 2));
    }
}
