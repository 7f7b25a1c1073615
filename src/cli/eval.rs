//! `secateur eval`: a benchmark from the first question, or from where it stopped, to its score.

use std::path::{Path, PathBuf};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use secateur_backends::{Job, VlmBackend};

use super::{args::EvalArgs, plan::ModelPlan, print, print_json};
use crate::{
    eval::{RunConfig, RunFolder, Standing, evaluate, standing},
    model::Llava,
    pruner::{method, selector},
    task::{Answer, Protocol, Report, Sample, Task, task},
};

pub(super) fn run(args: EvalArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    if args.limit == Some(0) {
        bail!("--limit 0 leaves no question; leave it out for all of them");
    }
    let plan = ModelPlan::new(&args.model)?;
    let data = std::path::absolute(args.data.unwrap_or_else(|| PathBuf::from(task.default_data())))?;
    let mut samples = task.samples(&data)?;
    if samples.is_empty() {
        bail!("{}: there is no question in the benchmark's files", data.display());
    }
    samples.truncate(args.limit.unwrap_or(usize::MAX));
    let config = config(&plan, task, &data, args.protocol, args.limit)?;
    // A label that is missing should not cost a night of answers first.
    let blank: Vec<Answer> = samples.iter().map(|s| Answer::new(s, String::new(), &config.model_name())).collect();
    task.score(&data, &blank, args.protocol)?;
    if args.limit.is_none() {
        task.upload(&data, &blank)?;
    }

    let path = args.out.join(config.folder_name());
    let there = if args.force { Standing::default() } else { standing(&args.out, &config, &samples)? };
    let score = |answers: &[Answer]| task.score(&data, answers, args.protocol);
    let report = if there.answers.len() == samples.len() && (there.scored || there.on_disk > samples.len()) {
        eprintln!("{} has {} answers already; --force runs it again", path.display(), there.on_disk);
        score(&there.answers)?
    } else if there.answers.len() == samples.len() {
        // Killed between the last answer and the score.
        let folder = RunFolder::open(&args.out, &config, &samples, false)?;
        finish(&folder, task, &data, score(folder.answers())?)?
    } else {
        let backend = plan.method().backend;
        let job = Eval { plan, samples: &samples, task, config: &config, out: &args.out, force: args.force };
        let folder = secateur_backends::run(backend, job)??;
        let report = finish(&folder, task, &data, score(folder.answers())?)?;
        eprintln!("{}", path.display());
        report
    };
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}

/// Writes what the benchmark's server takes, and the score.
fn finish(folder: &RunFolder, task: &dyn Task, data: &Path, mut report: Report) -> anyhow::Result<Report> {
    if let Some(name) = task.upload_name() {
        match task.upload(data, folder.answers()) {
            Ok(bytes) => {
                folder.write_upload(name, Some(&bytes))?;
                report.notes.push(format!("{name} in the run folder is what the server takes"));
            }
            // A run of a part of the questions has none.
            Err(error) => {
                folder.write_upload(name, None)?;
                report.notes.push(format!("no file for the server: {error}"));
            }
        }
    }
    folder.finish(&report)?;
    Ok(report)
}

fn config(
    plan: &ModelPlan,
    task: &dyn Task,
    data: &Path,
    protocol: Protocol,
    limit: Option<usize>,
) -> anyhow::Result<RunConfig> {
    let model = whole_path(&plan.model)?;
    let clip = plan.opened.clip().map(whole_path).transpose()?;
    let tiling = plan.options.tiling;
    let parameters = method(plan.method().method, plan.method().params)?.parameters();
    Ok(RunConfig {
        benchmark: task.name().to_owned(),
        protocol,
        model,
        method: plan.method().method.to_owned(),
        params: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        tokens: plan.method().tokens,
        backend: plan.method().backend.to_owned(),
        dtype: plan.options.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
        clip,
        grid: tiling.grid.map(|grid| grid.name().to_owned()),
        merge: tiling.merge.map(|merge| merge.name().to_owned()),
        seed: plan.method().seed,
        data: data.to_owned(),
        limit,
        max_new_tokens: task.max_new_tokens(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// A folder by its whole path (`.` is another model in another place), an id as it is.
fn whole_path(model: &str) -> std::io::Result<String> {
    if Path::new(model).is_dir() { Ok(std::path::absolute(model)?.display().to_string()) } else { Ok(model.to_owned()) }
}

struct Eval<'a> {
    plan: ModelPlan,
    samples: &'a [Sample],
    task: &'static dyn Task,
    config: &'a RunConfig,
    out: &'a Path,
    force: bool,
}

impl Job for Eval<'_> {
    type Output = anyhow::Result<RunFolder>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let method = self.plan.method();
        let selector = selector::<B>(method.method, method.params)?;
        let model: Llava<B> = self.plan.load(&device)?;
        // Only now: a run that cannot start leaves nothing behind and destroys nothing.
        let mut folder = RunFolder::open(self.out, self.config, self.samples, self.force)?;
        let bar = progress(self.samples.len(), folder.answers().len());
        evaluate(&model, &selector, self.task, self.samples, self.config, &mut folder, || bar.inc(1))?;
        bar.finish_and_clear();
        Ok(folder)
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
