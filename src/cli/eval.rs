//! `secateur eval`: runs a benchmark from the first question, or from where it stopped, to its score.

use anyhow::bail;

use super::{
    answer::{Worker, with_answerer},
    args::{EvalArgs, RunArgs},
    benchmark::Benchmark,
    check_videos,
    complete::{Missing, check_images, finish},
    fixed::Fixed,
    judge,
    plan::{MethodPlan, ModelPlan},
    print, print_json,
    workers::is_worker,
};
use crate::{
    eval::{Run, RunConfig, RunFolder, RunStatus, read_config, status},
    shard::{Shard, ShardChoice},
    statistics::Marks,
    task::{Answer, Report, Sample, task},
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
        plan.note_penalty();
        return Worker { plan, benchmarks, batching, temperature: args.run.temperature }.run();
    }
    benchmark.check(&args.run, judge)?;

    let plan = ModelPlan::new(&args.model, methods)?;
    plan.note_penalty();
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
