//! The questions of a run: those about an image together, several side by side, and the answers in the file's order.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc, time::Instant};

use secateur_backends::VlmBackend;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Cost, RunConfig, RunFolder};
use crate::{
    Error,
    engine::{Answered, Decoding, Engine, Event, Limits, Media, Request, RequestId, Sampling, SharedMedia, kept},
    model::Model,
    pruner::{Budget, Selector},
    task::{Answer, MediaSource, Sample, Task},
    text::{Prompt, strip},
    video::FrameRule,
};

/// How the questions of a run are gone through; the answers are the same up to rounding.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Questions that are answered side by side.
    pub batch: usize,
    /// Whether what questions have in common is computed once: the tower's output of an image, and the beginning of a prompt.
    pub reuse: bool,
}

impl Default for Batching {
    fn default() -> Self {
        Self { batch: 1, reuse: true }
    }
}

/// The questions of a run, and how they are asked.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The benchmark.
    pub task: &'a dyn Task,
    /// Its questions, or the part of them that is this run's.
    pub samples: &'a [Sample],
    /// The run's settings.
    pub config: &'a RunConfig,
    /// How the questions are gone through.
    pub batching: Batching,
}

/// Asks the questions that have no answer yet; `on_answer` is called after each. With [`Batching::reuse`], those about an image
/// are asked one after another, wherever they are in the file: its tower output is computed once.
///
/// # Errors
/// When an image cannot be read or an answer cannot be written; the answers that were given before are kept.
pub fn evaluate<B: VlmBackend>(
    model: &Model<B>,
    selector: &Selector<B>,
    run: Run,
    folder: &mut RunFolder,
    mut on_answer: impl FnMut(),
) -> Result<(), Error> {
    let Run { task, samples, config, batching } = run;
    let left: Vec<usize> = (0..samples.len()).filter(|&i| !folder.has(i)).collect();
    let decoding = decoding(task, config.temperature, config.seed, model.repetition_penalty());
    let asked = Asking { selector, tokens: config.tokens, decoding, batching };
    check_lengths(model, selector, left.iter().map(|&i| &samples[i]), config.tokens)?;
    let left = if batching.reuse { by_image(left, samples) } else { left };
    ask(model, asked, samples, left, |i, Given { text, cost }| {
        folder.add_cost(i, &samples[i].question_id, cost)?;
        folder.append(i, Answer::new(&samples[i], text, &config.model_name()))?;
        on_answer();
        Ok(())
    })
}

/// How the questions of a benchmark are answered.
pub fn decoding(task: &dyn Task, temperature: f32, seed: u64, repetition_penalty: f32) -> Decoding {
    Decoding {
        max_new_tokens: task.card().max_new_tokens,
        sampling: Sampling::new(temperature, 1.0, seed),
        stops: true,
        repetition_penalty,
    }
}

/// How questions are asked.
pub struct Asking<'a, B: VlmBackend> {
    /// The method.
    pub selector: &'a Selector<B>,
    /// The visual tokens that it keeps.
    pub tokens: Option<Budget>,
    /// How answers are decoded.
    pub decoding: Decoding,
    /// The work that questions share.
    pub batching: Batching,
}

/// An answer, and what it cost.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Given {
    /// The answer.
    pub text: String,
    /// Its cost.
    pub cost: Cost,
}

/// Asks the questions with these numbers, in this order; `on_answer` takes the number and the answer of each as it comes.
///
/// # Errors
/// When an image cannot be read, or `on_answer` fails. After an error no more questions are asked; those in flight are answered.
pub fn ask<B: VlmBackend>(
    model: &Model<B>,
    asking: Asking<B>,
    samples: &[Sample],
    questions: impl IntoIterator<Item = usize>,
    mut on_answer: impl FnMut(usize, Given) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut left = questions.into_iter();
    let Batching { batch, reuse } = asking.batching;
    let limits = Limits { batch: batch.max(1), ..Limits::default() };
    let mut engine = Engine::new(model, if reuse { limits } else { limits.without_reuse() });
    let mut asker = Asker { model, asking, last: None };
    let mut asked: HashMap<RequestId, Asked> = HashMap::new();
    let mut wrong = None;
    loop {
        while wrong.is_none() && engine.unfinished() < limits.batch {
            let Some(i) = left.next() else { break };
            let began = Instant::now();
            match asker.request(&samples[i]) {
                Ok(request) => {
                    asked.insert(engine.submit(request), Asked { question: i, began, first: None });
                }
                Err(error) => wrong = Some(of_question(&samples[i], error)),
            }
        }
        if engine.unfinished() == 0 {
            break;
        }
        let mut ended = Vec::new();
        engine.step(&mut |event| {
            match event {
                Event::Token { id, .. } => {
                    if let Some(asked) = asked.get_mut(&id) {
                        asked.first.get_or_insert_with(Instant::now);
                    }
                }
                Event::Ended { id, outcome } => ended.push((id, outcome)),
            }
            ControlFlow::Continue(())
        });
        for (id, outcome) in ended {
            let Some(asked) = asked.remove(&id) else { continue };
            let i = asked.question;
            match outcome {
                Ok(answered) => {
                    let text = strip(&model.tokenizer().decode(&answered.generated.ids)).to_owned();
                    on_answer(i, Given { text, cost: asked.cost(&answered) })?;
                }
                Err(error) if wrong.is_none() => wrong = Some(of_question(&samples[i], error)),
                Err(_) => {}
            }
        }
    }
    wrong.map_or(Ok(()), Err)
}

/// A question that is being answered.
struct Asked {
    question: usize,
    began: Instant,
    /// When its first token came.
    first: Option<Instant>,
}

impl Asked {
    fn cost<B: VlmBackend>(&self, answered: &Answered<B>) -> Cost {
        let since = |at: Instant| 1e3 * at.duration_since(self.began).as_secs_f64();
        let now = Instant::now();
        Cost {
            ttft_ms: since(self.first.unwrap_or(now)),
            total_ms: since(now),
            tokens: answered.generated.ids.len(),
            visual_tokens: kept(&answered.visual, &answered.generated).1,
            visual_tokens_before: answered.visual.iter().map(|seen| seen.unpruned).sum(),
        }
    }
}

/// The error of a question, with the question's id.
fn of_question(sample: &Sample, source: Error) -> Error {
    // A model that is broken is so with every question.
    match source {
        error @ Error::NotFinite { .. } => error,
        source => Error::Question { id: sample.question_id.to_string(), source: Box::new(source) },
    }
}

/// Questions that are handed out together, in the order in which one process asks them: those about an image, and at least as many as are
/// answered side by side.
pub fn groups(left: Vec<usize>, samples: &[Sample], Batching { batch, reuse }: Batching) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for i in if reuse { by_image(left, samples) } else { left } {
        match groups.last_mut() {
            Some(last) if last.len() < batch || reuse && is_about_one(&samples[last[last.len() - 1]], &samples[i]) => {
                last.push(i)
            }
            _ => groups.push(vec![i]),
        }
    }
    groups
}

fn is_about_one(a: &Sample, b: &Sample) -> bool {
    a.media.is_some() && a.media == b.media
}

/// The questions with those about an image together, in the order of the first about each.
fn by_image(left: Vec<usize>, samples: &[Sample]) -> Vec<usize> {
    let mut first: HashMap<&MediaSource, usize> = HashMap::new();
    let place = |i: usize| match &samples[i].media {
        Some(image) => *first.entry(image).or_insert(i),
        None => i,
    };
    let mut places: Vec<(usize, usize)> = left.into_iter().map(place_of(place)).collect();
    places.sort_unstable();
    places.into_iter().map(|(_, i)| i).collect()
}

fn place_of(mut place: impl FnMut(usize) -> usize) -> impl FnMut(usize) -> (usize, usize) {
    move |i| (place(i), i)
}

/// Refuses questions that are too long before the first is asked. Of visual tokens, those of one item are counted, which every image has.
///
/// # Errors
/// When a question is longer than the model reads, with the ids of others.
pub fn check_lengths<'s, B: VlmBackend>(
    model: &Model<B>,
    selector: &Selector<B>,
    samples: impl Iterator<Item = &'s Sample>,
    tokens: Option<Budget>,
) -> Result<(), Error> {
    // Where the number depends on the image, each has one at least.
    let patches = if model.has_fixed_grid() { model.grid().tokens() } else { 1 };
    let kept = match selector {
        Selector::Before(_) => tokens.map_or(Ok(patches), |budget| model.budget(budget, patches))?,
        Selector::Inside(_) => patches,
    };
    let mut too_long = Vec::new();
    for sample in samples {
        let placeholders = match sample.media {
            None => Vec::new(),
            Some(MediaSource::Video(_)) => vec![match model.frames() {
                Some(FrameRule::Count(frames)) => frames,
                _ => 1,
            }],
            Some(_) => vec![1],
        };
        // Placeholders that do not fit are an error where the question is asked.
        let Ok(prompt) = prompt(model, sample, &placeholders) else { continue };
        let visual = prompt.images();
        if let Err(error) = model.check_length(prompt.ids.len() - visual + visual * kept) {
            too_long.push((sample.question_id.to_string(), error));
        }
    }
    let mut too_long = too_long.into_iter();
    let Some((first, source)) = too_long.next() else { return Ok(()) };
    let others: Vec<String> = too_long.map(|(id, _)| id).collect();
    let id = match others.len() {
        0 => first,
        count => format!("{first}, and {count} more ({})", others[..count.min(8)].join(", ")),
    };
    Err(Error::Question { id, source: Box::new(source) })
}

/// The prompt of a question about images or videos with so many placeholders each.
///
/// # Errors
/// When the question has placeholders of its own that do not belong to these.
pub fn prompt<B: VlmBackend>(model: &Model<B>, sample: &Sample, placeholders: &[usize]) -> Result<Prompt, Error> {
    let form = if let Some(MediaSource::Video(_)) = sample.media { model.chat() } else { model.benchmark_chat() };
    let text = form.render(&format!("{}{}", sample.text, sample.suffix), placeholders)?;
    Prompt::new(&text, &sample.clip_text, model.tokenizer())
}

/// Makes requests of questions.
struct Asker<'a, B: VlmBackend> {
    model: &'a Model<B>,
    asking: Asking<'a, B>,
    /// The image of the question before, opened.
    last: Option<(&'a MediaSource, Arc<SharedMedia>)>,
}

impl<'a, B: VlmBackend> Asker<'a, B> {
    fn request<'s: 'a>(&mut self, sample: &'s Sample) -> Result<Request<'a, B>, Error> {
        let media = sample.media.as_ref().map(|image| self.open(image)).transpose()?;
        let placeholders: Vec<usize> =
            media.iter().map(|media| media.media().placeholders(self.model.frames())).collect();
        let prompt = prompt(self.model, sample, &placeholders)?;
        let media = media.into_iter().map(Media::Shared).collect();
        let Asking { selector, tokens, decoding, .. } = self.asking;
        let request = Request::new(media, prompt, selector, tokens, decoding);
        Ok(Request { draw: draw(sample), ..request })
    }

    fn open(&mut self, image: &'a MediaSource) -> Result<Arc<SharedMedia>, Error> {
        if let Some((last, media)) = &self.last
            && *last == image
        {
            return Ok(media.clone());
        }
        let media = SharedMedia::new(image.open(self.model.frames())?);
        self.last = Some((image, media.clone()));
        Ok(media)
    }
}

/// A question's own number, wherever in a run, a batch or a shard it is asked.
fn draw(sample: &Sample) -> u64 {
    let hash = Sha256::digest(format!("{}\0{}", sample.question_id, sample.text));
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}
