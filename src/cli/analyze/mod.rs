//! `secateur analyze`: the attention to visual tokens, as data and as charts.

mod sent;
mod write;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Context, bail};
use secateur_backends::{Job, VlmBackend};
use sent::Sent;
use serde_json::json;
use write::{write_dispersion, write_shift};

use super::{
    args::{Analysis, AnalyzeArgs},
    make_folder, note_turned, print, print_json,
    progress::{Progress, progress},
    terminal::say_once,
    workers::{Pool, is_worker, serve},
};
use crate::{
    Error,
    analysis::{Attention, Dispersion, Instruction, Shift, read},
    image::decode,
    model::{Checkpoint, Model, open},
    text::{Prompt, clip_question},
};

pub(super) fn run(args: AnalyzeArgs) -> anyhow::Result<()> {
    let images = args.images.clone().or_else(|| args.data.parent().map(Path::to_owned)).unwrap_or_default();
    if args.limit == Some(0) {
        usage!("--limit 0 leaves no question; leave it out for all of them");
    }
    let (questions, without) = read(&args.data, &images, args.limit.unwrap_or(usize::MAX))?;
    if without > 0 {
        say!("note: {without} entries have no image or no question and are skipped");
    }
    let checkpoint = open(&args.model, args.weights.beside())?;
    if args.what == Analysis::AttentionDispersion && checkpoint.decoder().num_hidden_layers < 2 {
        bail!("attention-dispersion reads the second layer of the language model, which has one");
    }
    if !checkpoint.has_fixed_grid() {
        bail!(
            "analyze adds up attention patch by patch, and images of this model have patches of their own number and places"
        );
    }
    let target = args.target.choose()?;
    let (grid, what, out) = (checkpoint.grid(), args.what, args.out.clone());
    if is_worker() {
        return target.run(Measure { args: &args, checkpoint, questions: &questions, sums: None })?;
    }
    make_folder(&out)?;
    let mut sums = Sums::new(&args, &questions);
    match Pool::start(&args.workers, target)? {
        None => target.run(Measure { args: &args, checkpoint, questions: &questions, sums: Some(&mut sums) })??,
        Some(mut pool) => {
            let (bar, each) = (sums.bar.clone(), (0..questions.len()).map(|question| vec![question]).collect());
            pool.hand_out(
                0,
                each,
                |question, value| sums.add(question, Sent::read(value)?),
                |text| {
                    bar.suspend(|| say_once(text));
                },
            )?;
        }
    }
    let (shift, dispersion) = sums.finish()?;
    let sentences = match what {
        Analysis::AttentionShift => write_shift(&shift, grid, &out)?,
        Analysis::AttentionDispersion => write_dispersion(&dispersion, &out)?,
    };
    print(&format!("{}\n{sentences}", out.display()))?;
    if args.json {
        print_json(&json!({ "folder": out, "sentences": sentences.lines().collect::<Vec<_>>() }))?;
    }
    Ok(())
}

/// Measures the attention of every question: into `sums`, or, in a worker, of those that are asked for on stdin.
struct Measure<'a, 'b> {
    args: &'a AnalyzeArgs,
    checkpoint: Checkpoint,
    questions: &'a [Instruction],
    sums: Option<&'a mut Sums<'b>>,
}

impl Job for Measure<'_, '_> {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { args, checkpoint, questions, sums } = self;
        let layers = match args.what {
            Analysis::AttentionShift => checkpoint.decoder().num_hidden_layers,
            Analysis::AttentionDispersion => 2,
        };
        let options = args.weights.options(false);
        checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
        let model: Model<B> = checkpoint.load(options, &device)?;
        model.notes().iter().for_each(|note| say!("note: {note}"));
        let of = |question: usize| {
            let instruction = questions.get(question).context("an order for no question")?;
            outcome(instruction, measure(&model, instruction, layers), questions.len())
        };
        match sums {
            Some(sums) => (0..questions.len()).try_for_each(|question| sums.add(question, of(question)?)),
            None => serve(|order, answered| {
                for question in order.questions {
                    answered(question, Sent::write(&of(question)?)?)?;
                }
                Ok(())
            }),
        }
    }
}

/// The outcome of a question: the attention, or the reason why it is skipped. One bad image among thousands should not cost the results of the
/// others; an error of the model is the same for every question.
fn outcome(
    instruction: &Instruction,
    measured: Result<Attention, Error>,
    questions: usize,
) -> anyhow::Result<Result<Attention, String>> {
    match measured {
        Ok(attention) => Ok(Ok(attention)),
        Err(error @ Error::NotFinite { .. }) => Err(error.into()),
        Err(error) if questions == 1 => Err(error.into()),
        Err(error) => {
            let (image, error) = (instruction.image.display(), anyhow::Error::from(error));
            Ok(Err(format!("the question about {image} is skipped: {error:#}")))
        }
    }
}

/// The sums over all questions, which are added in their order: sums of floats depend on it.
struct Sums<'a> {
    args: &'a AnalyzeArgs,
    questions: &'a [Instruction],
    shift: Shift,
    dispersion: Dispersion,
    bar: Arc<Progress>,
    measured: usize,
    /// The question that comes next, and those that came before their turn.
    next: usize,
    ahead: BTreeMap<usize, Result<Attention, String>>,
}

impl<'a> Sums<'a> {
    fn new(args: &'a AnalyzeArgs, questions: &'a [Instruction]) -> Self {
        let (shift, dispersion, bar) =
            (Shift::default(), Dispersion::default(), Arc::new(progress(questions.len(), 0)));
        Self { args, questions, shift, dispersion, bar, measured: 0, next: 0, ahead: BTreeMap::new() }
    }

    fn add(&mut self, question: usize, outcome: Result<Attention, String>) -> anyhow::Result<()> {
        self.bar.inc(1);
        self.ahead.insert(question, outcome);
        while let Some(outcome) = self.ahead.remove(&self.next) {
            self.bar.suspend(|| note_turned(&self.questions[self.next].image));
            self.next += 1;
            self.measured += usize::from(outcome.is_ok());
            match (outcome, self.args.what) {
                (Err(reason), _) => self.bar.suspend(|| say!("note: {reason}")),
                (Ok(attention), Analysis::AttentionShift) => self.shift.add(&attention),
                (Ok(attention), Analysis::AttentionDispersion) => self.dispersion.add(&attention),
            }
        }
        Ok(())
    }

    /// The sums, if there is anything in them.
    fn finish(self) -> anyhow::Result<(Shift, Dispersion)> {
        self.bar.finish_and_clear();
        let all = self.questions.len();
        if self.measured == 0 {
            bail!("{}: none of its {all} questions could be measured", self.args.data.display());
        }
        if self.measured < all {
            say!("note: the figures are over {} of {all} questions", self.measured);
        }
        Ok((self.shift, self.dispersion))
    }
}

fn measure<B: VlmBackend>(model: &Model<B>, instruction: &Instruction, layers: usize) -> Result<Attention, Error> {
    let Instruction { image, question } = instruction;
    let image = decode(image)?;
    let text = model.benchmark_chat().render(question, &[1])?;
    let prompt = Prompt::new(&text, &clip_question(question), model.tokenizer())?;
    Attention::measure(model, &image, &prompt, layers)
}
