//! The questions of a run, one after another or side by side.

use std::ops::ControlFlow;

use secateur_backends::VlmBackend;

use super::{RunConfig, RunFolder};
use crate::{
    Error,
    generate::{Begun, Decoding, Reuse, Sampling, ask_about, begin, decode, looks},
    model::{Llava, Look},
    pruner::Selector,
    task::{Answer, Picture, Sample, Task},
    text::{Prompt, Template, strip},
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
/// When a picture cannot be read or an answer cannot be written; the answers so far are kept.
pub fn evaluate<B: VlmBackend>(
    model: &Llava<B>,
    selector: &Selector<B>,
    run: Run,
    folder: &mut RunFolder,
    mut on_answer: impl FnMut(),
) -> Result<(), Error> {
    let Run { task, samples, config, pace } = run;
    let decoding = Decoding {
        max_new_tokens: task.max_new_tokens(),
        sampling: Sampling::new(config.temperature, 1.0, config.seed),
        end: model.tokenizer().eos(),
    };
    let mut last: Option<(Option<&Picture>, Vec<Look<B>>)> = None;
    let mut begun: Vec<Begun<B>> = Vec::new();
    for batch in samples[folder.answers().len()..].chunks(pace.batch.max(1)) {
        let mut asked = Vec::with_capacity(batch.len());
        for sample in batch {
            let wrong = |source| Error::Question { id: sample.question_id.to_string(), source: Box::new(source) };
            let picture = sample.picture.as_ref();
            let (_, looks) = match last.take_if(|(seen, _)| *seen == picture && pace.reuse) {
                Some(same) => last.insert(same),
                None => {
                    let media = picture.map(|picture| picture.open(model.config().frames())).transpose();
                    let looks = media.and_then(|media| looks(model, media.as_slice(), selector)).map_err(wrong)?;
                    last.insert((picture, looks))
                }
            };
            // Video-LLaVA's scripts for pictures ask like LLaVA's.
            let template = if let Some(Picture::Video(_)) = picture { model.template() } else { Template::VicunaV1 };
            let marks: Vec<usize> = looks.iter().map(Look::marks).collect();
            let turn = template.turn(&format!("{}{}", sample.text, sample.suffix), &marks).map_err(wrong)?;
            let prompt = Prompt::new(&turn, &sample.clip_text, model.tokenizer());
            let (_, one) = ask_about(model, looks, &prompt, selector, config.tokens).map_err(wrong)?;
            model.check_length(one.length()).map_err(wrong)?;
            asked.push(one);
        }
        // Of the batch before, the last prompt is enough.
        let last_begun = begun.pop();
        begun.clear();
        let reuse = if pace.reuse { Reuse::On(last_begun.as_ref()) } else { Reuse::Off };
        begun = begin(model, asked, decoding, reuse)?;
        let answers = decode(model, &mut begun, decoding, |_, _| ControlFlow::Continue(()));
        for (sample, answer) in batch.iter().zip(answers) {
            let text = strip(&model.tokenizer().decode(&answer.ids)).to_owned();
            folder.append(Answer::new(sample, text, &config.model_name()))?;
            on_answer();
        }
    }
    Ok(())
}
