//! `secateur sweep`: methods × budgets × benchmarks in one table, each run in its own folder as `eval` leaves it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use secateur_backends::{Job, VlmBackend};

use super::{
    args::{JudgeArgs, MethodArgs, SweepArgs},
    check_videos, data_folder,
    eval::{Fixed, complete},
    judge,
    plan::{MethodPlan, ModelPlan},
    print, print_json,
    sweep_table::{Row, Table},
};
use crate::{
    checksum::data_sha256,
    eval::{Pace, Run, RunConfig, standing},
    model::Llava,
    pruner::selector,
    task::{Answer, Sample, Task, task},
};

pub(super) fn run(args: SweepArgs) -> anyhow::Result<()> {
    if args.data.is_some() && args.benchmarks.len() > 1 {
        bail!("--data is the folder of one benchmark; give one, or leave it out");
    }
    let (plan, methods) = plans(&args)?;
    let fixed = Fixed::new(&plan, args.protocol, args.limit)?;
    let mut benchmarks = Vec::new();
    for name in &args.benchmarks {
        let benchmark = Benchmark::new(task(name)?, args.data.clone(), args.limit)?;
        check_videos(&benchmark.samples, &plan.opened)?;
        benchmarks.push(benchmark);
    }
    for benchmark in &benchmarks {
        benchmark.check(&fixed, &methods, &args)?;
    }
    let backend = plan.method().backend;
    let model = fixed.model_name();
    let job = Sweep { plan, methods, fixed, benchmarks, out: args.out.clone(), judge: args.judge.clone() };
    let rows = secateur_backends::run(backend, job)??;
    let table = Table::new(rows);
    for (extension, text) in [("csv", table.csv()?), ("json", serde_json::to_string_pretty(&table.json())? + "\n")] {
        let path = args.out.join(format!("sweep-{model}.{extension}"));
        crate::eval::write_file(&path, text.as_bytes())?;
        eprintln!("{}", path.display());
    }
    print(&table.text())?;
    if args.json {
        print_json(&table.json())?;
    }
    Ok(())
}

/// The plan that loads the model, and every run's: without pruning, then each method at each budget.
fn plans(args: &SweepArgs) -> anyhow::Result<(ModelPlan, Vec<MethodPlan>)> {
    let at = |tokens: usize| {
        let method = MethodArgs { tokens: Some(tokens), ..args.model.method.clone() };
        ModelPlan::several(&super::args::ModelArgs { method, ..args.model.clone() })
    };
    let mut methods: Vec<MethodPlan> = Vec::new();
    let mut first = None;
    // One budget may be given as for other commands.
    for &tokens in args.budgets.iter().chain(&args.model.method.tokens) {
        let plan = at(tokens)?;
        methods.extend(plan.methods.iter().filter(|method| method.method != "none").cloned());
        first.get_or_insert(plan);
    }
    let Some(plan) = first else { bail!("a sweep needs budgets; give them with --budgets 192,128,64") };
    let whole = MethodArgs { method: "none".to_owned(), tokens: None, ..args.model.method.clone() };
    methods.insert(0, MethodPlan::new(&whole)?);
    Ok((plan, methods))
}

/// A benchmark's questions.
struct Benchmark {
    task: &'static dyn Task,
    data: PathBuf,
    samples: Vec<Sample>,
    data_sha256: String,
}

impl Benchmark {
    fn new(task: &'static dyn Task, data: Option<PathBuf>, limit: Option<usize>) -> anyhow::Result<Self> {
        let data = data_folder(task, data)?;
        let mut samples = task.samples(&data)?;
        let data_sha256 = data_sha256(&samples);
        samples.truncate(limit.unwrap_or(usize::MAX));
        if samples.is_empty() {
            bail!("{}: there is no question of {}", data.display(), task.name());
        }
        Ok(Self { task, data, samples, data_sha256 })
    }
}

impl Benchmark {
    fn config(&self, fixed: &Fixed, method: &MethodPlan) -> anyhow::Result<RunConfig> {
        fixed.config(method, self.task, &self.data, self.data_sha256.clone())
    }

    /// The judge, if this is one of the benchmarks that have one.
    fn judge(&self, args: &JudgeArgs) -> JudgeArgs {
        self.task.judged().map(|_| args.clone()).unwrap_or_default()
    }

    /// What would stop a run, before the first one starts: labels that are missing, rules that are not known, folders of
    /// other runs.
    fn check(&self, fixed: &Fixed, methods: &[MethodPlan], args: &SweepArgs) -> anyhow::Result<()> {
        let blank: Vec<Answer> = self.samples.iter().map(|sample| Answer::new(sample, String::new(), "")).collect();
        judge::check(self.task, &self.data, &blank, args.protocol, &self.judge(&args.judge), &args.out)?;
        for method in methods {
            standing(&args.out, &self.config(fixed, method)?, &self.samples)?;
        }
        Ok(())
    }
}

struct Sweep {
    plan: ModelPlan,
    methods: Vec<MethodPlan>,
    fixed: Fixed,
    benchmarks: Vec<Benchmark>,
    out: PathBuf,
    judge: JudgeArgs,
}

impl Job for Sweep {
    type Output = anyhow::Result<Vec<Row>>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { plan, methods, fixed, benchmarks, out, judge } = self;
        let model: Llava<B> = plan.load(&device)?;
        let mut rows = Vec::new();
        for benchmark in &benchmarks {
            for method in &methods {
                let config = benchmark.config(&fixed, method)?;
                let score = one(&model, method, benchmark, &config, &out, &judge)?;
                rows.push(Row::new(&fixed.model_name(), benchmark.task.name(), method.method, method.tokens, score));
            }
        }
        Ok(rows)
    }
}

/// The headline score of one run, which is finished first if it is not; `None` where a server or a judge scores.
fn one<B: VlmBackend>(
    model: &Llava<B>,
    method: &MethodPlan,
    benchmark: &Benchmark,
    config: &RunConfig,
    out: &Path,
    judge: &JudgeArgs,
) -> anyhow::Result<Option<f64>> {
    let Benchmark { task, data, samples, .. } = benchmark;
    let judge = benchmark.judge(judge);
    let there = standing(out, config, samples)?;
    let report = if there.answers.len() == samples.len() && there.scored && judge.judge_url.is_none() {
        judge::score(*task, data, &there.answers, config.protocol, &judge, &out.join(config.folder_name()))?
    } else {
        eprintln!("{}", out.join(config.folder_name()).display());
        let selector = selector::<B>(method.method, method.params)?;
        complete(model, &selector, Run { task: *task, samples, config, pace: Pace::default() }, out, &judge)?
    };
    Ok(report.metrics.iter().find(|(name, _)| name == task.headline(config.protocol)).map(|(_, value)| *value))
}
