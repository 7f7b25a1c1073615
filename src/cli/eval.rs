//! `secateur eval`: a benchmark from the first question, or from where it stopped, to its score.

use std::path::PathBuf;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use secateur_backends::{Job, VlmBackend};

use super::{args::EvalArgs, plan::ModelPlan, print, print_json};
use crate::{
    eval::{RunConfig, RunFolder, evaluate, finished, write_score},
    model::Llava,
    pruner::pruner,
    task::{Answer, Sample, Task, task},
};

pub(super) fn run(args: EvalArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    if args.limit == Some(0) {
        bail!("--limit 0 leaves no question; leave it out for all of them");
    }
    let plan = ModelPlan::new(&args.model)?;
    let data = args.data.unwrap_or_else(|| PathBuf::from(task.default_data()));
    let mut samples = task.samples(&data)?;
    samples.truncate(args.limit.unwrap_or(usize::MAX));
    let config = RunConfig {
        benchmark: task.name().to_owned(),
        protocol: args.protocol,
        model: plan.model.clone(),
        method: plan.method.method.to_owned(),
        tokens: plan.method.tokens,
        backend: plan.method.backend.to_owned(),
        dtype: plan.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
        params: plan.method.params,
        seed: plan.method.seed,
        data: data.clone(),
        limit: args.limit,
        max_new_tokens: task.max_new_tokens(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let folder = args.out.join(config.folder_name());
    let there = if args.force { None } else { finished(&args.out, &config, &samples)? };
    let (answers, fresh) = match there {
        Some(answers) => {
            eprintln!("{} is finished; --force runs it again", folder.display());
            (answers, false)
        }
        None => {
            let backend = plan.method.backend;
            let job = Eval { plan, samples: &samples, task, config: &config, out: &args.out, force: args.force };
            (secateur_backends::run(backend, job)??, true)
        }
    };
    let report = task.score(&data, &answers, args.protocol)?;
    if fresh {
        write_score(&args.out, &config, &report)?;
        eprintln!("{}", folder.display());
    }
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}

struct Eval<'a> {
    plan: ModelPlan,
    samples: &'a [Sample],
    task: &'static dyn Task,
    config: &'a RunConfig,
    out: &'a std::path::Path,
    force: bool,
}

impl Job for Eval<'_> {
    type Output = anyhow::Result<Vec<Answer>>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let pruner = pruner::<B>(self.plan.method.method, self.plan.method.params)?;
        let model: Llava<B> = self.plan.load(&device)?;
        // Only now: a run that cannot start leaves nothing behind and destroys nothing.
        let mut folder = RunFolder::open(self.out, self.config, self.samples, self.force)?;
        let bar = progress(self.samples.len(), folder.answers().len());
        evaluate(&model, &*pruner, self.task, self.samples, self.config, &mut folder, || bar.inc(1))?;
        bar.finish_and_clear();
        Ok(folder.answers().to_vec())
    }
}

/// A bar on stderr; invisible where stderr is no terminal.
fn progress(total: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} questions · {elapsed_precise} · {eta_precise} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    bar
}
