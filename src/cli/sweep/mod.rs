//! `secateur sweep`: methods × budgets × benchmarks in one table, each run in its own folder as `eval` leaves it.

mod chart;
mod layout;
mod row;
mod table;

use layout::Layout;
use row::Row;
use table::Table;

use super::{
    answer::{Answerer, Worker, with_answerer},
    args::{Format, MethodArgs, RunArgs, SweepArgs},
    benchmark::Benchmark,
    check_videos,
    complete::{check_images, complete, judge_of},
    fixed::Fixed,
    plan::{MethodPlan, ModelPlan, budgets},
    print, print_json,
    workers::is_worker,
};
use crate::{
    eval::{Batching, RunStatus, read_cost, status},
    pruner::{Params, method},
    task::task,
};

pub(super) fn run(args: SweepArgs) -> anyhow::Result<()> {
    if args.data.is_some() && args.benchmarks.len() > 1 {
        usage!("--data is the folder of one benchmark; give one, or leave it out");
    }
    let args = SweepArgs { model: args.model.for_benchmarks(&args.benchmarks), ..args };
    let batching = args.run.batching()?;
    let methods = plans(&args)?;
    let tasks = args.benchmarks.iter().map(|name| task(name)).collect::<Result<Vec<_>, _>>()?;
    let mut benchmarks = Vec::new();
    for task in tasks {
        let benchmark = Benchmark::new(task, args.data.clone(), args.run.limit, args.run.first)?;
        if !is_worker() {
            benchmark.check(&args.run, &judge_of(task, &args.run.judge))?;
        }
        benchmarks.push(benchmark);
    }
    let plan = ModelPlan::new(&args.model, methods)?;
    plan.note_penalty();
    if is_worker() {
        return Worker { plan, benchmarks, batching, temperature: args.run.temperature }.run();
    }
    for benchmark in &benchmarks {
        check_videos(&benchmark.samples, &plan.checkpoint)?;
    }
    let fixed = Fixed::new(&plan, &args.run)?;
    let methods = plan.methods.clone();
    // Folders of other runs would stop the sweep in the middle, and so would damaged images.
    for benchmark in &benchmarks {
        let mut answered = benchmark.samples.len();
        for method in &methods {
            let there = match args.run.force {
                true => RunStatus::default(),
                false => status(&args.run.out, &fixed.config(method, benchmark)?, &benchmark.samples)?,
            };
            answered = answered.min(there.next);
        }
        check_images(&benchmark.samples[answered..])?;
    }
    let RunArgs { workers, out, json, .. } = &args.run;
    let rows =
        with_answerer(plan, workers, |answerer| rows(answerer, &methods, &fixed, &benchmarks, batching, &args.run))?;
    // Earlier sweeps in this folder keep their rows.
    let before = std::fs::read_to_string(out.join(format!("sweep-{}.json", fixed.model_name()))).unwrap_or_default();
    let table = Table::new(rows, Table::rows_of(&before));
    for (extension, text) in [("csv", table.csv()?), ("json", serde_json::to_string_pretty(&table.json())? + "\n")] {
        let path = out.join(format!("sweep-{}.{extension}", fixed.model_name()));
        crate::files::write_file(&path, text.as_bytes())?;
        say!("{}", path.display());
    }
    let (charts, without) = chart::write(&table.rows, out)?;
    charts.iter().for_each(|path| say!("{path}"));
    if !without.is_empty() {
        say!(
            "note: no chart of times for {}: its runs were not all timed on one device, or not all questions are equal",
            without.join(", ")
        );
    }
    let layout = Layout::new(&table);
    match (*json, args.format) {
        (true, _) | (_, Format::Json) => {
            print(&layout.text())?;
            print_json(&table.json())?;
        }
        (_, Format::Table) => print(&layout.text())?,
        (_, Format::Markdown) => print(&layout.markdown())?,
        (_, Format::Latex) => print(&layout.latex())?,
        (_, Format::Csv) => print(table.csv()?.trim_end())?,
    }
    Ok(())
}

/// The plans of all runs: without pruning, then each method at each budget.
fn plans(args: &SweepArgs) -> anyhow::Result<Vec<MethodPlan>> {
    let budgets = budgets(&args.budgets, args.model.method.tokens);
    if args.seeds == 0 {
        usage!("--seeds 0 runs nothing; 1 is one seed");
    }
    if budgets.is_empty() {
        usage!("a sweep needs budgets; give them with --budgets 192,128,64");
    }
    let given = &args.model.method;
    let mut methods =
        vec![MethodPlan::new(&MethodArgs { method: Some("none".to_owned()), tokens: None, ..given.clone() })?];
    for tokens in budgets {
        let plans = MethodPlan::several(&MethodArgs { tokens: Some(tokens), ..given.clone() })?;
        methods.extend(
            plans.into_iter().filter(|method| method.method != "none").flat_map(|plan| with_seeds(plan, args.seeds)),
        );
    }
    Ok(methods)
}

/// A plan for each seed, if the method reads it.
fn with_seeds(plan: MethodPlan, seeds: u64) -> Vec<MethodPlan> {
    let reads = method(plan.method, plan.params).is_ok_and(|method| method.card().needs.fingerprint);
    let count = if reads { seeds } else { 1 };
    let with = |seed| MethodPlan { seed, params: Params { seed, ..plan.params }, ..plan.clone() };
    (0..count).map(|i| with(plan.seed + i)).collect()
}

/// The rows of all runs, which are completed first.
fn rows(
    answerer: &mut dyn Answerer,
    methods: &[MethodPlan],
    fixed: &Fixed,
    benchmarks: &[Benchmark],
    batching: Batching,
    args: &RunArgs,
) -> anyhow::Result<Vec<Row>> {
    let (mut rows, runs) = (Vec::new(), benchmarks.len() * methods.len());
    for benchmark in benchmarks {
        let mut notes: Vec<String> = Vec::new();
        for method in methods {
            let config = fixed.config(method, benchmark)?;
            let report =
                complete(answerer, rows.len(), Some([rows.len() + 1, runs]), benchmark, &config, batching, args)?;
            let cost = read_cost(&args.out.join(config.folder_name()));
            rows.push(Row::new(&config, benchmark.task, &report, cost.as_ref()));
            for note in report.notes {
                if !notes.contains(&note) {
                    say!("note: {}: {note}", benchmark.task.name());
                    notes.push(note);
                }
            }
        }
    }
    Ok(rows)
}
