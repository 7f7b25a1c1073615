//! `secateur eval`: runs a benchmark from the first question, or from where it stopped, to its score.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};

use super::{
    answer::{Worker, with_answerer},
    args::{EvalArgs, JudgeArgs, RunArgs},
    benchmark::Benchmark,
    check_videos, judge,
    plan::{MethodPlan, ModelPlan},
    print, print_json,
    progress::progress,
    workers::is_worker,
};
use crate::{
    eval::{Looked, Run, RunConfig, RunFolder, RunStatus, look_through, read_config, status},
    model::DEMO,
    pruner::{Budget, method},
    shard::{Shard, ShardChoice},
    statistics::Marks,
    task::{Answer, Report, Sample, Task, holes, task},
    words::count,
};

pub(super) fn run(args: EvalArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let args = EvalArgs { model: args.model.for_benchmarks(std::slice::from_ref(&args.benchmark)), ..args };
    let RunArgs { limit, protocol, out, force, judge, .. } = &args.run;
    let batching = args.run.batching()?;
    let shard = shard(args.shard)?;
    let methods = vec![MethodPlan::new(&args.model.method)?];
    let benchmark = Benchmark::new(task, args.data, *limit, args.run.first)?;
    if let Some(shard) = shard.filter(|shard| shard.count > benchmark.samples.len()) {
        bail!("shard {shard} is not possible: there are {} questions", benchmark.samples.len());
    }
    if is_worker() {
        let samples = part(&benchmark.samples, shard).to_vec();
        let benchmarks = vec![Benchmark { samples, ..benchmark }];
        let plan = ModelPlan::new(&args.model, methods)?;
        return Worker { plan, benchmarks, batching, temperature: args.run.temperature }.run();
    }
    benchmark.check(&args.run, judge)?;

    let plan = ModelPlan::new(&args.model, methods)?;
    check_videos(&benchmark.samples, &plan.checkpoint)?;
    let config = Fixed::new(&plan, &args.run)?.config(plan.method(), &benchmark)?;
    let Benchmark { data, samples, .. } = benchmark;
    let config = RunConfig { shard, ..config };
    let run = out.join(config.folder_name());
    let samples = part(&samples, shard);
    let asked = Run { task, samples, config: &config, batching };
    let there = if *force { RunStatus::default() } else { status(out, &config, samples)? };
    if shard.is_some() {
        return run_shard(plan, asked, &args.run, &there);
    }
    let score = |answers: &[Answer]| judge::score(task, &data, answers, *protocol, judge, &run);
    let report = match Missing::new(&there, samples.len(), judge) {
        Missing::Nothing => {
            say!("{} has {} answers already; --force runs it again", run.display(), there.on_disk);
            score(&there.answers)?
        }
        Missing::Score => {
            let folder = RunFolder::open(out, &config, samples, false)?;
            finish(&folder, task, &data, score(folder.answers())?)?
        }
        Missing::Answers => {
            let folder = answer(plan, asked, &args.run)?;
            let report = finish(&folder, task, &data, score(folder.answers())?)?;
            say!("{}", run.display());
            report
        }
    };
    print(&report.table(Some(&config.heading())))?;
    if args.run.json {
        print_json(&report)?;
    }
    Ok(())
}

/// Runs a shard of a run. A shard has no score of its own.
fn run_shard(plan: ModelPlan, asked: Run, args: &RunArgs, there: &RunStatus) -> anyhow::Result<()> {
    let Run { task, samples, config, .. } = asked;
    let folder = args.out.join(config.folder_name());
    if there.answers.len() < samples.len() {
        answer(plan, asked, args)?;
    } else if there.on_disk == samples.len() && read_config(&folder)? != *config {
        // The run has all answers, under another --limit or data folder: its folder takes the new settings.
        RunFolder::open(&args.out, config, samples, false)?;
    }
    print(&format!("{}: {} answers; `secateur merge` joins the shards", folder.display(), samples.len()))?;
    if args.json {
        let (benchmark, n) = (task.name(), samples.len());
        let (protocol, metrics, marks) = (args.protocol, Vec::new(), Marks::default());
        print_json(&Report { benchmark, protocol, n, metrics, marks, notes: Vec::new() })?;
    }
    Ok(())
}

/// The work that a run folder still needs.
pub(super) enum Missing {
    /// Nothing: the folder has a score, or answers to more questions than are asked for. It stays as it is.
    Nothing,
    /// The score: the run was killed between the last answer and the score, or is to be judged anew.
    Score,
    /// Answers: some questions are not answered yet.
    Answers,
}

impl Missing {
    pub(super) fn new(there: &RunStatus, questions: usize, judge: &JudgeArgs) -> Self {
        if there.answers.len() < questions {
            Self::Answers
        } else if there.scored && judge.judge_url.is_none() || there.on_disk > questions {
            Self::Nothing
        } else {
            Self::Score
        }
    }
}

/// Checks the images of the questions that are left, before a model is loaded for them.
pub(super) fn check_images(samples: &[Sample]) -> anyhow::Result<()> {
    let bar = progress(samples.len(), 0);
    let looked = look_through(samples, || bar.inc(1));
    bar.finish_and_clear();
    let Looked { images, turned } = looked?;
    if turned > 0 {
        let are = if turned == 1 { "is" } else { "are" };
        say!(
            "note: {turned} of {} {are} stored turned (EXIF); their pixels are taken as they are stored, as the official code does",
            count(images, "image")
        );
    }
    Ok(())
}

/// Answers the questions that are left.
fn answer(plan: ModelPlan, run: Run, args: &RunArgs) -> anyhow::Result<RunFolder> {
    let RunArgs { out, force, .. } = args;
    let left = if *force { run.samples } else { &run.samples[status(out, run.config, run.samples)?.next..] };
    check_images(left)?;
    with_answerer(plan, &args.workers, |answerer| {
        // The folder is opened only now: a run that cannot start leaves nothing behind and destroys nothing.
        let mut folder = RunFolder::open(out, run.config, run.samples, *force)?;
        answerer.answer(0, run, &mut folder)?;
        Ok(folder)
    })
}

/// The questions of a shard.
fn part(samples: &[Sample], shard: Option<Shard>) -> &[Sample] {
    &samples[shard.map_or(0..samples.len(), |shard| shard.range(samples.len()))]
}

/// The shard of the run that was asked for. An array may as well be over methods or seeds, so that a shard is never taken from a scheduler
/// without being asked for.
fn shard(flag: Option<ShardChoice>) -> anyhow::Result<Option<Shard>> {
    let found = Shard::from_scheduler(|name| std::env::var(name).ok());
    match flag {
        Some(ShardChoice::One(shard)) => Ok(Some(shard).filter(|shard| shard.count > 1)),
        Some(ShardChoice::Auto) => {
            let Some((shard, variable)) = found.map_err(anyhow::Error::msg)? else {
                bail!("--shard auto finds no SLURM array and no indexed Kubernetes job here; give --shard I/N");
            };
            say!("note: shard {shard}, from {variable}");
            Ok(Some(shard).filter(|shard| shard.count > 1))
        }
        None => {
            if let Ok(Some((shard, variable))) = found
                && shard.count > 1
            {
                say!(
                    "note: every question is asked; {variable} is set, and --shard auto would ask those of shard {shard}"
                );
            }
            Ok(None)
        }
    }
}

/// Writes the file for the benchmark's server, and the score.
pub(super) fn finish(folder: &RunFolder, task: &dyn Task, data: &Path, mut report: Report) -> anyhow::Result<Report> {
    if let Some(name) = task.card().upload {
        let whole = match folder.config().limit {
            None => true,
            Some(limit) => task.samples(data)?.len() <= limit,
        };
        let upload = match whole {
            true => task.upload(data, folder.answers()).map_err(anyhow::Error::from),
            false => Err(anyhow!("it takes answers to all questions, and --limit leaves some out")),
        };
        match upload {
            Ok(bytes) => {
                report.notes.extend(holes(task, data, folder.answers())?);
                folder.write_upload(name, Some(&bytes))?;
                report.notes.push(format!("{name} in the run folder is what the server takes"));
            }
            Err(error) => {
                folder.write_upload(name, None)?;
                report.notes.push(format!("no file for the server: {error}"));
            }
        }
    }
    folder.finish(&report)?;
    Ok(report)
}

/// The settings that all runs with one checkpoint have in common; the checksum in them takes a while.
pub(super) struct Fixed {
    config: RunConfig,
    clip_sha256: String,
    /// Tokens of an item before pruning.
    whole: usize,
}

impl Fixed {
    pub(super) fn new(plan: &ModelPlan, run: &RunArgs) -> anyhow::Result<Self> {
        let tiling = plan.options.tiling;
        let joint = plan.options.joint;
        Ok(Self {
            whole: plan.checkpoint.grid().tokens(),
            clip_sha256: if joint { plan.checkpoint.text_side_sha256()? } else { String::new() },
            config: RunConfig {
                benchmark: String::new(),
                protocol: run.protocol,
                model: whole_path(&plan.model)?,
                method: String::new(),
                params: BTreeMap::new(),
                tokens: None,
                share: None,
                backend: plan.method().target.backend.to_owned(),
                dtype: plan.options.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
                clip: plan.checkpoint.clip().map(whole_path).transpose()?,
                grid: tiling.grid.map(|grid| grid.name().to_owned()),
                merge: tiling.merge.map(|merge| merge.name().to_owned()),
                seed: plan.method().seed,
                temperature: run.temperature,
                data: PathBuf::new(),
                limit: run.limit,
                first: run.first,
                shard: None,
                checkpoint_sha256: plan.checkpoint.sha256()?,
                clip_sha256: String::new(),
                data_sha256: String::new(),
                max_new_tokens: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        })
    }

    pub(super) fn model_name(&self) -> String {
        self.config.model_name()
    }

    /// The settings of one run.
    pub(super) fn config(
        &self,
        plan: &MethodPlan,
        Benchmark { task, data, data_sha256, .. }: &Benchmark,
    ) -> anyhow::Result<RunConfig> {
        let method = method(plan.method, plan.params)?;
        let parameters = method.parameters();
        Ok(RunConfig {
            benchmark: task.name().to_owned(),
            method: plan.method.to_owned(),
            params: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tokens: plan.tokens,
            share: match plan.tokens {
                Some(share @ Budget::Share(_)) => Some(share.of(self.whole)?),
                _ => None,
            },
            seed: plan.seed,
            data: data.clone(),
            clip_sha256: if method.card().needs.joint { self.clip_sha256.clone() } else { String::new() },
            data_sha256: data_sha256.clone(),
            max_new_tokens: task.card().max_new_tokens,
            ..self.config.clone()
        })
    }
}

/// The whole path of a folder (`.` is another model in another place), and an id as it is. The built-in checkpoint's
/// name is never a folder.
fn whole_path(model: &str) -> std::io::Result<String> {
    if model != DEMO && Path::new(model).is_dir() {
        return Ok(std::path::absolute(model)?.display().to_string());
    }
    Ok(model.to_owned())
}
