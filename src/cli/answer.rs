//! How the questions of runs are answered: by a model in this process, or by workers.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use secateur_backends::{Job, VlmBackend};
use serde_json::Value;

use super::{
    benchmark::Benchmark,
    plan::{MethodPlan, ModelPlan},
    progress::{Progress, progress},
    terminal::say_once,
    workers::{Pool, WorkerArgs, serve},
};
use crate::{
    eval::{Asking, Batching, Run, RunFolder, ask, check_lengths, decoding, evaluate, groups},
    model::Model,
    pruner::{Selector, selector},
    task::Answer,
};

/// What answers the questions of runs. Runs are numbered by benchmark and, within each, by method.
pub(super) trait Answerer {
    /// Answers what is left of run number `number`.
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()>;
}

/// Calls `work` with workers, if the flags ask for some, else with a model in this process.
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
        let methods = self.plan.methods.clone();
        let model: Model<B> = self.plan.load(&device)?;
        (self.work)(&mut Here { model, methods })
    }
}

/// A model in this process.
struct Here<B: VlmBackend> {
    model: Model<B>,
    methods: Vec<MethodPlan>,
}

impl<B: VlmBackend> Answerer for Here<B> {
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()> {
        let MethodPlan { method, params, .. } = self.methods[number % self.methods.len()];
        let selector: Selector<B> = selector(method, params)?;
        let bar = begin(run, folder)?;
        evaluate(&self.model, &selector, run, folder, || bar.inc(1))?;
        bar.finish_and_clear();
        Ok(())
    }
}

impl Answerer for Pool {
    fn answer(&mut self, number: usize, run: Run, folder: &mut RunFolder) -> anyhow::Result<()> {
        let Run { samples, config, batching, .. } = run;
        let bar = begin(run, folder)?;
        let left = (0..samples.len()).filter(|&i| !folder.has(i)).collect();
        let take = |question: usize, text: Value| {
            let Value::String(text) = text else { bail!("a worker gave no text for question {question}") };
            folder.append(question, Answer::new(&samples[question], text, &config.model_name()))?;
            bar.inc(1);
            Ok(())
        };
        self.hand_out(number, groups(left, samples, batching), take, |text| bar.suspend(|| say_once(text)))?;
        bar.finish_and_clear();
        Ok(())
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
            let asking = Asking { selector: &selector, tokens, decoding: decoding(*task, temperature, seed), batching };
            let mut broken = None;
            let asked = ask(&model, asking, samples, order.questions, |question, text| {
                broken = broken.take().or(answered(question, text.into()).err());
                Ok(())
            });
            // Nobody reads the answers any more.
            broken.map_or(Ok(()), Err)?;
            Ok(asked?)
        })
    }
}
