//! `secateur eval`: a benchmark from the first question, or from where it stopped, to its score.

use std::{ops::ControlFlow, path::Path};

use indicatif::{ProgressBar, ProgressStyle};
use secateur_backends::{Job, VlmBackend};

use super::{args::EvalArgs, plan::ModelPlan, print, print_json};
use crate::{
    eval::{RunConfig, RunFolder},
    generate::{Sampling, generate},
    image::decode,
    model::Llava,
    pruner::pruner,
    task::{Answer, Sample, Task, task},
    text::{Prompt, vicuna_v1},
};

pub(super) fn run(args: EvalArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let plan = ModelPlan::new(&args.model)?;
    let mut samples = task.samples(&args.data)?;
    samples.truncate(args.limit.unwrap_or(usize::MAX));
    let config = RunConfig {
        benchmark: task.name().to_owned(),
        protocol: args.protocol,
        model: plan.model.clone(),
        method: plan.method.method.to_owned(),
        tokens: plan.method.tokens,
        backend: plan.method.backend.to_owned(),
        dtype: plan.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
        seed: plan.method.seed,
        data: args.data.clone(),
        limit: args.limit,
        max_new_tokens: task.max_new_tokens(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let mut folder = RunFolder::open(&args.out, &config, &samples, args.force)?;
    if folder.answers().len() < samples.len() {
        let backend = plan.method.backend;
        secateur_backends::run(backend, Eval { plan, samples: &samples, task, folder: &mut folder })??;
    } else {
        eprintln!("{} is finished; --force runs it again", folder.path().display());
    }
    let report = task.score(&args.data, folder.answers(), args.protocol)?;
    folder.finish(&report)?;
    print(&report.table())?;
    eprintln!("{}", folder.path().display());
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}

struct Eval<'a> {
    plan: ModelPlan,
    samples: &'a [Sample],
    task: &'static dyn Task,
    folder: &'a mut RunFolder,
}

impl Job for Eval<'_> {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let method = self.plan.method.clone();
        let name = model_name(&self.plan.model);
        let pruner = pruner::<B>(method.method)?;
        let model: Llava<B> = self.plan.load(&device)?;
        let bar = progress(self.samples.len(), self.folder.answers().len());
        for sample in &self.samples[self.folder.answers().len()..] {
            let picture = decode(&sample.image)?;
            let seen = model.see(&picture, &*pruner, method.tokens)?;
            let prompt = Prompt::new(&vicuna_v1(&sample.text, 1)?, model.tokenizer());
            let embeds = model.splice(&prompt, &[seen]);
            let limit = self.task.max_new_tokens();
            let answer = generate(&model, embeds, limit, Sampling::Greedy, |_| ControlFlow::Continue(()))?;
            let text = model.tokenizer().decode(&answer.ids).trim().to_owned();
            self.folder.append(Answer::new(sample, text, &name))?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }
}

/// The last part of a path or id, as in run folders and answer lines.
pub(super) fn model_name(model: &str) -> String {
    let name = Path::new(model).file_name().map(|name| name.to_string_lossy().into_owned());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "model".to_owned())
}

/// A bar on stderr; invisible where stderr is no terminal.
fn progress(total: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} questions · {elapsed_precise} · {eta_precise} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    bar
}
