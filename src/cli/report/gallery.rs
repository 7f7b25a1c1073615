//! The gallery: questions on which methods disagree, with the patches that each method kept. It also measures the time
//! to the first token.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, bail};
use burn::tensor::DType;
use clap::ValueEnum;
use secateur_backends::{Job, Target, VlmBackend};

use super::{
    graded::Graded,
    html::data_address,
    runs::{Group, Stored},
    slide::{Slide, slide},
};
use crate::{
    checksum::data_sha256,
    cli::{args::WeightType, median},
    drawing::arranged,
    engine::{Decoding, answer, go_on, kept},
    eval::prompt,
    image::{GridRule, kept_patches},
    model::{Beside, Checkpoint, LoadOptions, Model, PixelChoice, Quantise, TilingChoice, open},
    pruner::{method, selector},
    sequence::Merge,
    task::{Sample, normalise},
    text::Prompt,
    video::Media,
};

/// The number of questions with a slider.
const SLIDES: usize = 2;

/// A question with the answers of all runs.
pub(super) struct Shown {
    pub(super) question: String,
    /// The image as the model sees it, as a `data:` address.
    pub(super) image: String,
    /// The right answer; empty where it is not known.
    pub(super) right: String,
    /// The answers of the runs.
    pub(super) answers: Vec<Given>,
    /// Whether the images are strips of frames.
    pub(super) wide: bool,
}

/// A run's answer to a question of the gallery.
pub(super) struct Given {
    /// Method and budget.
    pub(super) run: String,
    pub(super) text: String,
    /// Whether it is right; `None` where that is not known.
    pub(super) is_right: Option<bool>,
    /// An image of the kept patches; empty if all were kept.
    pub(super) overlay: String,
}

/// The part of a report for which a model must be loaded.
#[derive(Default)]
pub(super) struct Gallery {
    pub(super) shown: Vec<Shown>,
    /// Questions with the budget as a slider.
    pub(super) slides: Vec<Slide>,
    /// The time to the first token of each run in the group, the median over the gallery's questions.
    pub(super) first_token: Vec<Option<Duration>>,
    /// The number of questions that were timed.
    pub(super) timed: usize,
}

/// The numbers of the questions with the most different answers at any one budget, and that budget. If there are too
/// few to `measure` with, the first of the other questions follow, which are only timed.
pub(super) fn questions(group: &Group, count: usize, measure: bool) -> Vec<(usize, Option<usize>)> {
    let budgets: BTreeSet<usize> = group.runs.iter().filter_map(|run| run.config.kept()).collect();
    let questions = group.runs.iter().map(|run| run.answers.len()).min().unwrap_or(0);
    let mut found: Vec<(usize, usize, usize)> = Vec::new();
    for question in 0..questions {
        let different = |budget: usize| {
            let runs = group.runs.iter().filter(|run| run.config.kept().is_none_or(|tokens| tokens == budget));
            let texts: BTreeSet<String> = runs.map(|run| normalise(&run.answers[question].text)).collect();
            texts.len()
        };
        // Of budgets with equally many answers the largest counts: there, disagreement is the most surprising.
        let best = budgets.iter().map(|&budget| (different(budget), budget)).max();
        found.extend(best.filter(|(answers, _)| *answers > 1).map(|(answers, budget)| (answers, question, budget)));
    }
    found.sort_by_key(|&(answers, question, _)| (std::cmp::Reverse(answers), question));
    let mut chosen: Vec<(usize, Option<usize>)> =
        found.into_iter().take(count).map(|(_, question, budget)| (question, Some(budget))).collect();
    if !measure {
        return chosen;
    }
    let others: Vec<usize> = (0..questions).filter(|i| chosen.iter().all(|(question, _)| question != i)).collect();
    chosen.extend(others.into_iter().take(count - chosen.len()).map(|question| (question, None)));
    chosen
}

/// Loads the group's model and answers the chosen questions with every run's method.
pub(super) fn gallery(group: &Group, chosen: &[(usize, Option<usize>)], target: Target) -> anyhow::Result<Gallery> {
    let config = &group.runs[0].config;
    let samples = group.task.samples(&config.data).context("the questions are not there any more")?;
    if !config.data_sha256.is_empty() && data_sha256(&samples) != config.data_sha256 {
        bail!("{}: the questions are others than when they were answered", config.data.display());
    }
    let samples = config.asked(group.task, samples);
    let beside = Beside { mmproj: config.mmproj.as_deref(), clip: config.clip.as_deref() };
    let mut checkpoint = open(&config.model, beside).context("the checkpoint is not there any more")?;
    let pixels = PixelChoice { least: config.min_pixels, most: config.max_pixels };
    checkpoint.set_pixels(pixels).map_err(anyhow::Error::msg)?;
    let joint = group
        .runs
        .iter()
        .any(|run| method(&run.config.method, run.params()).is_ok_and(|m| checkpoint.reads_text_side(m.card().needs)));
    // Settings that this version does not know leave the page without images.
    let grid = config.grid.as_deref().map(|name| GridRule::from_str(name, true)).transpose();
    let merge = config.merge.as_deref().map(|name| Merge::from_str(name, true)).transpose();
    let dtype = config.dtype.as_deref().map(|name| WeightType::from_str(name, true)).transpose();
    let dtype = dtype.map_err(anyhow::Error::msg)?.map(DType::from);
    let tiling = TilingChoice { grid: grid.map_err(anyhow::Error::msg)?, merge: merge.map_err(anyhow::Error::msg)? };
    let quantise = config.quantize.as_deref().map(|name| Quantise::from_str(name, true)).transpose();
    let (quantise, int8) = (quantise.map_err(anyhow::Error::msg)?, config.activations.is_some());
    let options = LoadOptions { dtype, joint, tiling, quantise, int8 };
    target.run(Make { group, chosen, samples, checkpoint, options })?
}

struct Make<'a> {
    group: &'a Group,
    chosen: &'a [(usize, Option<usize>)],
    samples: Vec<Sample>,
    checkpoint: Checkpoint,
    options: LoadOptions,
}

impl Job for Make<'_> {
    type Output = anyhow::Result<Gallery>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { group, chosen, samples, checkpoint, options } = self;
        let model: Model<B> = checkpoint.load(options, &device)?;
        let mut times = vec![Vec::new(); group.runs.len()];
        let (mut shown, mut slides, mut timed) = (Vec::new(), Vec::new(), 0);
        let graded = Graded::new(group);
        for &(question, budget) in chosen {
            // Answers were written in the order of the questions.
            let Some(sample) = samples.get(question) else { continue };
            if group.runs.iter().any(|run| !run.answers[question].answers(sample)) {
                bail!("the answers are not to these questions");
            }
            let Some(image) = &sample.media else { continue };
            let media = image.open(model.frames())?;
            let prompt = prompt(&model, sample, &[media.placeholders(model.frames())])?;
            if timed == 0 {
                // The first round warms up.
                group.runs.iter().try_for_each(|run| one(&model, &media, &prompt, run).map(|_| ()))?;
            }
            timed += 1;
            let whole = arranged(&model, &media, None, |square, _| square);
            let mut answers = Vec::new();
            for (run, times) in group.runs.iter().zip(&mut times) {
                let (time, overlay) = one(&model, &media, &prompt, run)?;
                times.push(time);
                if budget.is_some_and(|budget| run.config.kept().is_none_or(|tokens| tokens == budget)) {
                    let answer = &run.answers[question];
                    let is_right = graded.mark(run, answer).map(|mark| mark.credit >= 0.5);
                    answers.push(Given { run: run.name(), text: answer.text.clone(), is_right, overlay });
                }
            }
            if budget.is_some() {
                let wide = whole.width > 2 * whole.height;
                let right = graded.right(&group.runs[0].answers[question]);
                let (question, image) = (sample.text.clone(), data_address(&whole));
                shown.push(Shown { question, image, right, answers, wide });
                if slides.len() < SLIDES {
                    slides.extend(slide(&model, &media, (&prompt, &sample.text), group)?);
                }
            }
        }
        Ok(Gallery { shown, slides, first_token: times.into_iter().map(median).collect(), timed })
    }
}

/// The time to the first token of one run's method, and an image of the kept patches; empty if it keeps all patches.
fn one<B: VlmBackend>(
    model: &Model<B>,
    media: &Media,
    prompt: &Prompt,
    run: &Stored,
) -> anyhow::Result<(Duration, String)> {
    let selector = selector::<B>(&run.config.method, run.params())?;
    let first = Decoding::greedy(1);
    let tokens = run.config.tokens;
    let (seen, generated) = answer(model, std::slice::from_ref(media), prompt, &selector, tokens, first, go_on)?;
    let time = seen[0].vision + seen[0].prune + generated.prefill;
    if tokens.is_none() {
        return Ok((time, String::new()));
    }
    let (kept, grid) = (kept(&seen, &generated).0, seen[0].grid);
    let image = arranged(model, media, seen[0].tiles, |square, crop| kept_patches(&square, grid, &kept[crop]));
    Ok((time, data_address(&image)))
}
