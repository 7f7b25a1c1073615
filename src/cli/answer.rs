//! How the questions of runs are answered: by a model in this process, or by workers.

use std::{
    collections::BTreeSet,
    io,
    time::{Instant, SystemTime},
};

use anyhow::Context;
use chrono::{DateTime, SecondsFormat, Utc};
use secateur_backends::{Job, Target, VlmBackend, kernels_of};
use serde_json::Value;

use super::{
    benchmark::Benchmark,
    interrupt::goodbye,
    memory::peak_memory,
    plan::{MethodPlan, ModelPlan},
    progress::{Progress, progress},
    terminal::say_once,
    version::version,
    workers::{Pool, WorkerArgs, serve},
};
use crate::{
    eval::{Asking, Batching, Given, Run, RunFolder, Session, ask, check_lengths, decoding, evaluate, groups},
    model::Model,
    pruner::{Selector, selector},
    task::Answer,
};

/// Something that answers the questions of runs: a model, or workers. Runs are numbered by benchmark and, within each, by method.
pub(super) trait Answerer {
    /// Answers what is left of run number `number`.
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()>;
}

/// Calls `work` with workers where the flags ask for some, else with a model in this process.
pub(super) fn with_answerer<R>(
    plan: ModelPlan,
    workers: &WorkerArgs,
    work: impl FnOnce(&mut dyn Answerer) -> anyhow::Result<R>,
) -> anyhow::Result<R> {
    let target = plan.method().target;
    match Pool::start(workers, target)? {
        Some(mut pool) => work(&mut pool),
        None => target.run(InProcess { plan, work })?,
    }
}

struct InProcess<W> {
    plan: ModelPlan,
    work: W,
}

impl<R, W: FnOnce(&mut dyn Answerer) -> anyhow::Result<R>> Job for InProcess<W> {
    type Output = anyhow::Result<R>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let (methods, target) = (self.plan.methods.clone(), self.plan.method().target);
        let model: Model<B> = self.plan.load(&device)?;
        (self.work)(&mut Here { model, methods, target })
    }
}

/// A model in this process.
struct Here<B: VlmBackend> {
    model: Model<B>,
    methods: Vec<MethodPlan>,
    target: Target,
}

impl<B: VlmBackend> Answerer for Here<B> {
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()> {
        let MethodPlan { method, params, .. } = self.methods[number % self.methods.len()];
        let selector: Selector<B> = selector(method, params)?;
        let (bar, began, before) = (begin(run, folder)?, Instant::now(), folder.answered());
        evaluate(&self.model, &selector, run, folder, || bar.inc(1))?;
        bar.finish_and_clear();
        let part = session(self.target, began, folder.answered() - before);
        add_session(folder, Session { peak_bytes: peak_memory(), ..part })
    }
}

/// Adds a part of the run, unless it only went on to the score.
fn add_session(folder: &RunFolder, part: Session) -> anyhow::Result<()> {
    if part.answered > 0 {
        folder.add_session(part)?;
    }
    Ok(())
}

/// A part of a run that began at `began`.
fn session(target: Target, began: Instant, answered: usize) -> Session {
    let date: DateTime<Utc> = SystemTime::now().into();
    Session {
        wall_s: began.elapsed().as_secs_f64(),
        answered,
        backend: target.backend.to_owned(),
        device: target.info().map(|info| info.name),
        instructions: kernels_of(target.backend).map(|kernels| kernels.instructions.to_owned()),
        threads: rayon::current_num_threads(),
        workers: None,
        peak_bytes: None,
        date: date.to_rfc3339_opts(SecondsFormat::Secs, true),
        version: version(),
    }
}

impl Answerer for Pool {
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()> {
        let Run { samples, config, batching, .. } = run;
        let (bar, began, before) = (begin(run, folder)?, Instant::now(), folder.answered());
        let left = (0..samples.len()).filter(|&i| !folder.has(i)).collect();
        let take = |question: usize, given: Value| {
            let Given { text, cost } = serde_json::from_value(given).context("a worker gave no answer")?;
            folder.add_cost(question, &samples[question].question_id, cost)?;
            folder.append(question, Answer::new(&samples[question], text, &config.model_name()))?;
            bar.inc(1);
            Ok(())
        };
        self.hand_out(number, groups(left, samples, batching), take, |text| bar.suspend(|| say_once(text)))?;
        bar.finish_and_clear();
        let part = session(self.target(), began, folder.answered() - before);
        add_session(folder, Session { workers: Some(self.len()), threads: self.threads(), ..part })
    }
}

/// Prepares a run's folder for answers.
fn begin(run: Run, folder: &RunFolder) -> anyhow::Result<Progress> {
    if !folder.is_locked() {
        say!("note: this file system has no locks; let no other process write to {}", folder.path().display());
    }
    if let Some(name) = run.task.card().upload.filter(|_| folder.answered() == 0) {
        // An old upload is of answers that --force threw away.
        folder.write_upload(name, None)?;
    }
    goodbye(format!("the answers so far are in {}; the same command goes on from there", folder.path().display()));
    Ok(progress(run.samples.len(), folder.answered()))
}

/// A worker's side: answers the questions of runs that are asked for on stdin.
pub(super) struct Worker {
    pub(super) plan: ModelPlan,
    pub(super) benchmarks: Vec<Benchmark>,
    pub(super) batching: Batching,
    pub(super) temperature: f32,
}

impl Worker {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let target = self.plan.method().target;
        target.run(self)?
    }
}

impl Job for Worker {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { plan, benchmarks, batching, temperature } = self;
        let methods = plan.methods.clone();
        let model: Model<B> = plan.load(&device)?;
        let mut checked = BTreeSet::new();
        serve(|order, answered| {
            let (benchmark, method) = (order.run / methods.len(), order.run % methods.len());
            let MethodPlan { method, params, tokens, seed, .. } = methods[method];
            let Benchmark { task, samples, .. } = benchmarks.get(benchmark).context("an order for no run")?;
            let selector: Selector<B> = selector(method, params)?;
            if checked.insert(order.run) {
                check_lengths(&model, &selector, samples.iter(), tokens)?;
            }
            let decoding = decoding(*task, temperature, seed, model.repetition_penalty());
            let asking = Asking { selector: &selector, tokens, decoding, batching };
            let mut broken = None;
            let asked = ask(&model, asking, samples, order.questions, |question, given| {
                let sent = serde_json::to_value(given).map_err(io::Error::from);
                broken = broken.take().or(sent.and_then(|given| answered(question, given)).err());
                Ok(())
            });
            // Nobody reads the answers any more.
            broken.map_or(Ok(()), Err)?;
            Ok(asked?)
        })
    }
}
