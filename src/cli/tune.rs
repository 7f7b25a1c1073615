//! `secateur tune`: the smallest budget at which each method surely keeps a share of the score without pruning.

use anyhow::{Context, bail};
use serde::Serialize;

use super::{
    answer::with_answerer,
    args::{MethodArgs, TuneArgs},
    benchmark::Benchmark,
    check_videos,
    complete::{check_images, complete},
    fixed::Fixed,
    plan::{MethodPlan, ModelPlan, names},
    print, print_json,
};
use crate::{
    pruner::Budget,
    statistics::{Comparison, Marks, compare},
    task::{Unit, task},
};

/// A budget that was tried.
#[derive(Clone, Debug, Serialize)]
struct Tried {
    tokens: usize,
    /// The score in the unit of papers.
    score: f64,
    /// The share of the score without pruning, in percent.
    retained: f64,
    /// The lower end of the 95 % interval of that share.
    surely: f64,
}

/// The smallest budget of a method.
#[derive(Clone, Debug, Serialize)]
struct Row {
    method: &'static str,
    /// The smallest budget that keeps the target; all tokens where no smaller one does.
    tokens: usize,
    /// The measurement there; none where all tokens stay.
    at: Option<Tried>,
    /// All budgets that were tried, in their order.
    tried: Vec<Tried>,
}

#[derive(Serialize)]
struct Table {
    benchmark: &'static str,
    model: String,
    /// The share that must be kept, in percent.
    target: f64,
    n: usize,
    /// The score without pruning, in the unit of papers.
    base: f64,
    /// The number of tokens of an item before pruning.
    tokens: usize,
    rows: Vec<Row>,
}

pub(super) fn run(args: TuneArgs) -> anyhow::Result<()> {
    let args = TuneArgs { model: args.model.for_benchmarks(std::slice::from_ref(&args.benchmark)), ..args };
    let given = &args.model.method;
    if let Some(tokens) = given.tokens {
        usage!("--tokens {tokens}: tune looks for the budget itself");
    }
    if args.run.workers.are_asked() {
        usage!("--devices, --workers: tune answers in one process; `sweep` takes several");
    }
    let (task, batching) = (task(&args.benchmark)?, args.run.batching()?);
    let plan = |method: &str, tokens| {
        MethodPlan::new(&MethodArgs { method: Some(method.to_owned()), tokens, ..given.clone() })
    };
    let mut plans = vec![plan("none", None)?];
    // The budget is set for each try.
    for name in names(given.list())?.into_iter().filter(|name| *name != "none") {
        plans.push(plan(name, Some(1.into()))?);
    }
    let benchmark = Benchmark::new(task, args.data.clone(), args.run.limit, args.run.first)?;
    benchmark.check(&args.run, &args.run.judge)?;
    let plan = ModelPlan::new(&args.model, plans)?;
    plan.note_penalty();
    check_videos(&benchmark.samples, &plan.checkpoint)?;
    check_images(&benchmark.samples)?;
    let (fixed, plans, patches) =
        (Fixed::new(&plan, &args.run)?, plan.methods.clone(), plan.checkpoint.grid().tokens());
    let table = with_answerer(plan, &args.run.workers, |answerer| {
        let mut marks = |number: usize, plan: &MethodPlan| -> anyhow::Result<Marks> {
            let config = fixed.config(plan, &benchmark)?;
            Ok(complete(answerer, number, None, &benchmark, &config, batching, &args.run)?.marks)
        };
        let base = marks(0, &plans[0])?;
        let score = base.score().with_context(|| format!("{}: a server or a judge scores it", task.name()))?;
        if score <= 0.0 {
            bail!("{}: the score without pruning is 0, of which no share can be kept", task.name());
        }
        let mut rows = Vec::new();
        for (number, plan) in plans.iter().enumerate().skip(1) {
            let measure = |tokens: usize| {
                let plan = MethodPlan { tokens: Some(Budget::Tokens(tokens)), ..plan.clone() };
                let found = compare(&base, &marks(number, &plan)?).context("two runs share no question")?;
                Ok(tried(tokens, &found, task.card().unit))
            };
            rows.push(smallest(plan.method, patches, args.target, measure)?);
        }
        let (benchmark, model, n) = (task.name(), fixed.model_name(), base.answers.len());
        let base = task.card().unit.in_papers(score);
        Ok(Table { benchmark, model, target: args.target, n, base, tokens: patches, rows })
    })?;
    print(&table.text())?;
    if args.run.json {
        print_json(&table)?;
    }
    Ok(())
}

fn tried(tokens: usize, found: &Comparison, unit: Unit) -> Tried {
    let [base, score] = found.scores;
    let percent = |score: f64| 100.0 * score / base;
    Tried { tokens, score: unit.in_papers(score), retained: percent(score), surely: percent(base + found.interval[0]) }
}

/// Bisects between nothing and all tokens, as if a larger budget never kept less.
fn smallest(
    method: &'static str,
    patches: usize,
    target: f64,
    mut measure: impl FnMut(usize) -> anyhow::Result<Tried>,
) -> anyhow::Result<Row> {
    // With all tokens nothing is lost, so that this budget is not tried.
    let (mut too_few, mut enough, mut tried) = (0, patches, Vec::new());
    while enough - too_few > 1 {
        let found = measure(too_few.midpoint(enough))?;
        if found.surely >= target {
            enough = found.tokens;
        } else {
            too_few = found.tokens;
        }
        tried.push(found);
    }
    let at = tried.iter().find(|found| found.tokens == enough).cloned();
    Ok(Row { method, tokens: enough, at, tried })
}

impl Table {
    /// The table for people.
    fn text(&self) -> String {
        let Self { benchmark, model, target, n, base, tokens, rows } = self;
        let mut text = format!(
            "{benchmark} · {model} · {n} questions · {base:.2} without pruning\n\
             The smallest budgets that keep {target} % of it, with the 95 % interval above that:\n\n\
             method        tokens    score   kept, %   at least, %\n"
        );
        for Row { method, tokens, at, .. } in rows {
            text += &match at {
                Some(at) => {
                    format!("{method:<12} {tokens:>7} {:>8.2} {:>9.1} {:>13.1}\n", at.score, at.retained, at.surely)
                }
                None => format!("{method:<12} {tokens:>7}   all: no smaller budget is sure to\n"),
            };
        }
        text + &format!(
            "\nItems have {tokens} tokens. More questions make the interval narrower, and the budgets smaller."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_budget_is_found() {
        for least in [1, 2, 63, 64, 100, 575, 576] {
            let mut measured = 0;
            let measure = |tokens: usize| {
                measured += 1;
                let surely = if tokens >= least { 99.5 } else { 90.0 };
                Ok(Tried { tokens, score: 50.0, retained: 99.9, surely })
            };
            let row = smallest("grid", 576, 99.0, measure).unwrap();
            assert_eq!((row.tokens, row.at.is_none()), (least, least == 576));
            assert!(measured <= 10 && row.tried.len() == measured);
        }
    }
}
