//! `secateur ask`: images and a question in, a streamed answer out.

use std::{
    cell::RefCell,
    io::Write,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::Duration,
};

use secateur_backends::{Job, VlmBackend};
use serde::Serialize;

mod comparison;
mod sixel;
mod watch;

use comparison::Comparison;

use super::{
    args::AskArgs,
    check_sampling, check_there, ms, note_outside,
    plan::{MethodPlan, ModelPlan},
    print_json, see,
    terminal::for_stdout,
};
use crate::{
    Error,
    drawing::arranged,
    engine::{Decoding, Generated, Sampling, Stream, answer, go_on, kept},
    image::{Grid, Tiles, kept_patches},
    messages::Messages,
    model::{Model, VisualTokens},
    pruner::selector,
    text::{Prompt, strip},
    video::Media,
};

/// The tokens of the shortest answer whose rate is told.
const LEAST_FOR_A_RATE: usize = 8;

pub(super) fn run(args: AskArgs) -> anyhow::Result<()> {
    check_sampling(args.temperature, args.top_p)?;
    let sampling = Sampling::new(args.temperature, args.top_p, args.model.method.seed);
    let named = named(&args)?;
    let plan = ModelPlan::new(&args.model, MethodPlan::several(&args.model.method)?)?;
    let checkpoint = &plan.checkpoint;
    let messages = match (&args.messages, named) {
        (Some(path), _) => Messages::read(path, checkpoint.frames())?,
        (None, (images, question)) => {
            let media = images.iter().map(|path| see(path, checkpoint.frames())).collect::<Result<Vec<_>, _>>()?;
            Messages::question(&question, media)
        }
    };
    note_outside(args.model.model(), &messages.media, &messages.last_question());
    plan.note_penalty();
    let prompt = messages.prompt(checkpoint.chat().own, checkpoint.frames(), &checkpoint.tokenizer)?;
    let target = plan.method().target;
    let (media, limit) = (messages.media, args.max_new_tokens);
    target.run(Ask { plan, media, prompt, sampling, limit, json: args.json, watch: args.watch })?
}

/// The images and the question that were typed; none where messages are read from a file.
fn named(args: &AskArgs) -> anyhow::Result<(Vec<PathBuf>, String)> {
    if let Some(path) = &args.messages {
        check_there(path)?;
        return Ok(Default::default());
    }
    let mut images: Vec<PathBuf> = args.images_and_question.iter().map(PathBuf::from).collect();
    // Clap asks for at least two values, so the last one is not the only one.
    images.pop();
    let question = args.images_and_question.last().cloned().unwrap_or_default();
    if question.trim().is_empty() || Path::new(&question).is_file() {
        usage!("the question is missing: it stands behind the images, and `{question}` is none");
    }
    images.iter().try_for_each(|path| check_named(path, &args.images_and_question))?;
    Ok((images, question))
}

/// Refuses what is no file, with what a user may have meant.
fn check_named(path: &Path, values: &[String]) -> anyhow::Result<()> {
    if path == Path::new("-") {
        usage!("`-`: images are not read from standard input; give the file's name");
    }
    let is_word = !path.exists() && path.extension().is_none() && path.components().count() == 1;
    if is_word && Path::new(&values[0]).exists() {
        let first = values.iter().position(|value| Path::new(value) == path).unwrap_or(0);
        usage!("`{}` is no file; put the question in quotes: \"{}\"", path.display(), values[first..].join(" "));
    }
    Ok(check_there(path)?)
}

struct Ask {
    plan: ModelPlan,
    media: Vec<Media>,
    prompt: Prompt,
    sampling: Sampling,
    limit: usize,
    json: bool,
    watch: bool,
}

/// The last line of `ask --json`.
#[derive(Serialize)]
pub(super) struct AskResult {
    pub(super) text: String,
    pub(super) method: &'static str,
    backend: &'static str,
    visual_tokens_before: usize,
    pub(super) visual_tokens: usize,
    pub(super) ttft_ms: f64,
    vision_ms: f64,
    pub(super) prune_ms: f64,
    prefill_ms: f64,
    tokens_per_second: Option<f64>,
    pub(super) total_ms: f64,
}

/// One answer: its fields, and the list that several answers have.
#[derive(Serialize)]
struct Single<'a> {
    #[serde(flatten)]
    result: &'a AskResult,
    answers: [&'a AskResult; 1],
}

impl Job for Ask {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let methods = self.plan.methods.clone();
        let model: Model<B> = self.plan.load(&device)?;
        let prompt = self.prompt;
        let decoding = Decoding {
            max_new_tokens: self.limit,
            sampling: self.sampling,
            stops: true,
            repetition_penalty: model.repetition_penalty(),
        };
        let watched: RefCell<Option<Watched>> = RefCell::default();
        let show = || watched.borrow_mut().take().iter().for_each(|kept| draw(&model, &self.media[0], kept));
        let ask = |method: &MethodPlan, on_token: &mut dyn FnMut(&[u32]) -> ControlFlow<()>| {
            let selector = selector::<B>(method.method, method.params)?;
            let (seen, answer) = answer(&model, &self.media, &prompt, &selector, method.tokens, decoding, on_token)?;
            let text = model.tokenizer().decode(&answer.ids);
            if self.watch && method.tokens.is_some() && !seen.is_empty() {
                *watched.borrow_mut() = Some((seen[0].grid, seen[0].tiles, kept(&seen[..1], &answer).0));
            }
            anyhow::Ok(summary(&seen, &answer, text, method))
        };
        if let [method] = &methods[..] {
            let mut out: Box<dyn Write> = match self.json {
                true => Box::new(std::io::stderr().lock()),
                false => Box::new(std::io::stdout().lock()),
            };
            let mut stream = Stream::default();
            let mut written = Ok(());
            let result = ask(method, &mut |ids| {
                let new = stream.push(&model, ids);
                written = out.write_all(for_stdout(&new).as_bytes()).and_then(|()| out.flush());
                if written.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            written?;
            writeln!(out, "{}", for_stdout(&stream.finish(&result.text)))?;
            drop(out);
            show();
            say!("{}", line(&result));
            return if self.json { print_json(&Single { result: &result, answers: [&result] }) } else { Ok(()) };
        }
        let mut comparison = Comparison::new(&methods)?;
        // Otherwise the first method's time would include the work of the first use (GPU kernels, pages of a mapped file).
        let cheap = methods.iter().find(|method| method.tokens.is_some()).unwrap_or(&methods[0]);
        let _ = ask(cheap, &mut |_| ControlFlow::Break(()));
        for method in &methods {
            match ask(method, &mut go_on) {
                Ok(mut result) => {
                    result.text = strip(&result.text).to_owned();
                    comparison.add(result)?;
                    show();
                }
                // Such a model has no answer that is worth a row.
                Err(error) if matches!(error.downcast_ref(), Some(Error::NotFinite { .. })) => return Err(error),
                // A prompt that is too long unpruned says nothing about the other methods.
                Err(error) => comparison.add_failure(method.method, &error)?,
            }
        }
        if self.json {
            comparison.print_json()?;
        }
        comparison.check()
    }
}

/// The part of the first image that a method keeps: its grid, its tiles, and the patches of each item.
type Watched = (Grid, Option<Tiles>, Vec<Vec<usize>>);

/// Draws in the terminal what stays of the first image.
fn draw<B: VlmBackend>(model: &Model<B>, media: &Media, (grid, tiles, kept): &Watched) {
    let image = arranged(model, media, *tiles, |item, crop| kept_patches(&item, *grid, &kept[crop]));
    watch::draw(&image, *grid, kept);
}

fn summary<B: VlmBackend>(
    seen: &[VisualTokens<B>],
    answer: &Generated,
    text: String,
    method: &MethodPlan,
) -> AskResult {
    let vision: Duration = seen.iter().map(|seen| seen.vision).sum();
    let prune: Duration = seen.iter().map(|seen| seen.prune).sum();
    AskResult {
        text,
        method: method.method,
        backend: method.target.backend,
        visual_tokens_before: seen.iter().map(|seen| seen.unpruned).sum(),
        visual_tokens: kept(seen, answer).1,
        ttft_ms: ms(vision + prune + answer.prefill),
        vision_ms: ms(vision),
        prune_ms: ms(prune),
        prefill_ms: ms(answer.prefill),
        // A word or two say nothing about the rate.
        tokens_per_second: answer.tokens_per_second().filter(|_| answer.ids.len() >= LEAST_FOR_A_RATE),
        total_ms: ms(vision + prune + answer.prefill + answer.decode),
    }
}

fn line(result: &AskResult) -> String {
    let speed = result.tokens_per_second.map_or_else(|| "–".to_owned(), |speed| format!("{speed:.1}"));
    format!(
        "visual tokens {} → {} ({}, {}) · first token after {:.0} ms (vision {:.0}, prune {:.1}, prefill {:.0}) · \
         {speed} tokens/s",
        result.visual_tokens_before,
        result.visual_tokens,
        result.method,
        result.backend,
        result.ttft_ms,
        result.vision_ms,
        result.prune_ms,
        result.prefill_ms,
    )
}
