//! The questions of a run, one after another or side by side.

use std::ops::ControlFlow;

use secateur_backends::VlmBackend;
use sha2::{Digest, Sha256};

use super::{RunConfig, RunFolder};
use crate::{
    Error,
    generate::{Asked, Begun, Decoding, Reuse, Sampling, ask_about, begin, decode, looks},
    model::{EncodedMedia, Model},
    pruner::Selector,
    task::{Answer, Picture, Sample, Task},
    text::{Prompt, strip},
};

/// How the questions of a run are gone through; the answers are the same up to rounding.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Questions that are answered side by side.
    pub batch: usize,
    /// Whether what questions have in common is computed once: the tower's output of a picture, and the beginning of a prompt.
    pub reuse: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { batch: 1, reuse: true }
    }
}

/// What is to be asked.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// The benchmark.
    pub task: &'a dyn Task,
    /// Its questions, or the part of them that is this run's.
    pub samples: &'a [Sample],
    /// The run's settings.
    pub config: &'a RunConfig,
    /// How the questions are gone through.
    pub pace: Pace,
}

/// Asks the questions that have no answer yet, in order; `on_answer` is called after each.
///
/// # Errors
/// When a picture cannot be read or an answer cannot be written; the answers to all questions before it are kept.
pub fn evaluate<B: VlmBackend>(
    model: &Model<B>,
    selector: &Selector<B>,
    run: Run,
    folder: &mut RunFolder,
    mut on_answer: impl FnMut(),
) -> Result<(), Error> {
    let Run { task, samples, config, pace } = run;
    let decoding = Decoding {
        max_new_tokens: task.max_new_tokens(),
        sampling: Sampling::new(config.temperature, 1.0, config.seed),
        stops: true,
    };
    check_lengths(model, selector, &samples[folder.answers().len()..], config.tokens)?;
    let mut asker = Asker { model, selector, tokens: config.tokens, reuse: pace.reuse, last: None };
    let mut begun: Vec<Begun<B>> = Vec::new();
    for batch in samples[folder.answers().len()..].chunks(pace.batch.max(1)) {
        let mut asked = Vec::with_capacity(batch.len());
        let mut wrong = None;
        for sample in batch {
            match asker.ask(sample) {
                Ok(one) => asked.push(one),
                Err(source) => {
                    wrong = Some(Error::Question { id: sample.question_id.to_string(), source: Box::new(source) });
                    break;
                }
            }
        }
        // Of the batch before, the last prompt is enough.
        let last_begun = begun.pop();
        begun.clear();
        let reuse = if pace.reuse { Reuse::On(last_begun.as_ref()) } else { Reuse::Off };
        begun = begin(model, asked, decoding, reuse)?;
        let answers = decode(model, &mut begun, decoding, |_, _| ControlFlow::Continue(()))?;
        for (sample, answer) in batch.iter().zip(answers) {
            let text = strip(&model.tokenizer().decode(&answer.ids)).to_owned();
            folder.append(Answer::new(sample, text, &config.model_name()))?;
            on_answer();
        }
        if let Some(wrong) = wrong {
            return Err(wrong);
        }
    }
    Ok(())
}

/// Refuses questions that are too long before the first is asked. Of visual tokens, those of one crop are counted, which every picture has.
fn check_lengths<B: VlmBackend>(
    model: &Model<B>,
    selector: &Selector<B>,
    samples: &[Sample],
    tokens: Option<usize>,
) -> Result<(), Error> {
    let patches = model.grid().tokens();
    let kept = match selector {
        Selector::Before(_) => tokens.unwrap_or(patches),
        Selector::Inside(_) => patches,
    };
    let mut too_long = Vec::new();
    for sample in samples {
        let marks = match sample.picture {
            None => Vec::new(),
            Some(Picture::Video(_)) => vec![model.frames().unwrap_or(1)],
            Some(_) => vec![1],
        };
        // Marks that do not fit are an error where the question is asked.
        let Ok(prompt) = prompt(model, sample, &marks) else { continue };
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

/// What the model is asked, about pictures or videos with so many marks each.
///
/// # Errors
/// When the question has marks of its own that do not belong to these.
pub fn prompt<B: VlmBackend>(model: &Model<B>, sample: &Sample, marks: &[usize]) -> Result<Prompt, Error> {
    let form = if let Some(Picture::Video(_)) = sample.picture { model.chat() } else { model.benchmark_chat() };
    let turn = form.render(&format!("{}{}", sample.text, sample.suffix), marks)?;
    Prompt::new(&turn, &sample.clip_text, model.tokenizer())
}

/// Makes prompts of questions.
struct Asker<'a, B: VlmBackend> {
    model: &'a Model<B>,
    selector: &'a Selector<B>,
    tokens: Option<usize>,
    reuse: bool,
    /// The picture of the question before, and what the tower made of it.
    last: Option<(Option<&'a Picture>, Vec<EncodedMedia<B>>)>,
}

impl<'a, B: VlmBackend> Asker<'a, B> {
    fn ask(&mut self, sample: &'a Sample) -> Result<Asked<'a, B>, Error> {
        let Self { model, selector, .. } = *self;
        let picture = sample.picture.as_ref();
        let (_, looks) = match self.last.take_if(|(seen, _)| *seen == picture && self.reuse) {
            Some(same) => self.last.insert(same),
            None => {
                let media = picture.map(|picture| picture.open(model.frames())).transpose()?;
                self.last.insert((picture, looks(model, media.as_slice(), selector)?))
            }
        };
        let marks: Vec<usize> = looks.iter().map(EncodedMedia::placeholders).collect();
        let prompt = prompt(model, sample, &marks)?;
        let (_, asked) = ask_about(model, looks, &prompt, selector, self.tokens)?;
        model.check_length(asked.length())?;
        Ok(Asked { draw: draw(sample), ..asked })
    }
}

/// A question's own number, wherever in a run, a batch or a shard it is asked.
fn draw(sample: &Sample) -> u64 {
    let hash = Sha256::digest(format!("{}\0{}", sample.question_id, sample.text));
    u64::from_le_bytes(std::array::from_fn(|i| hash[i]))
}
