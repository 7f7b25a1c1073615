//! `secateur compare`: finished runs on the questions that they share.

use std::{fmt::Write, path::Path};

use anyhow::{Context, bail};
use serde::Serialize;

use super::{args::CompareArgs, print, print_json};
use crate::{
    eval::{RunConfig, read_config, read_marks},
    statistics::{Comparison, Marks, compare},
    task::task,
    words::count,
};

/// A finished run.
struct Finished {
    folder: String,
    config: RunConfig,
    marks: Marks,
}

/// A run beside the first one.
#[derive(Serialize)]
struct Row<'a> {
    run: &'a str,
    method: &'a str,
    tokens: Option<usize>,
    seed: u64,
    /// The comparison with the first run, in the unit of papers.
    #[serde(flatten)]
    comparison: Comparison,
}

#[derive(Serialize)]
struct Table<'a> {
    benchmark: &'a str,
    metric: &'a str,
    /// The run that the others are compared with.
    base: &'a str,
    rows: Vec<Row<'a>>,
}

pub(super) fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let runs = args.runs.iter().map(|folder| read(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    let [base, others @ ..] = &runs[..] else { bail!("two runs or more are needed") };
    let unit = task(&base.config.benchmark)?.card().unit;
    let mut rows = Vec::new();
    for other in others {
        let RunConfig { benchmark, protocol, .. } = &base.config;
        if (benchmark, protocol) != (&other.config.benchmark, &other.config.protocol) {
            bail!("{} and {} are not of one benchmark by one rule", base.folder, other.folder);
        }
        let found = compare(&base.marks, &other.marks)
            .with_context(|| format!("{} and {} share no question", base.folder, other.folder))?;
        let RunConfig { method, seed, .. } = &other.config;
        let comparison = found.map(|score| unit.in_papers(score));
        rows.push(Row { run: &other.folder, method, tokens: other.config.kept(), seed: *seed, comparison });
    }
    let table = Table { benchmark: &base.config.benchmark, metric: &base.marks.metric, base: &base.folder, rows };
    print(&text(base, others, &table))?;
    if args.json {
        print_json(&table)?;
    }
    Ok(())
}

fn read(folder: &Path) -> anyhow::Result<Finished> {
    let (config, marks) = (read_config(folder)?, read_marks(folder)?);
    if marks.units.is_empty() {
        bail!("{}: its answers have no marks: a server or a judge scores them", folder.display());
    }
    Ok(Finished { folder: folder.display().to_string(), config, marks })
}

/// A p-value as papers write it.
pub(super) fn p_value(p: f64) -> String {
    if p < 0.001 { "<0.001".to_owned() } else { format!("{p:.3}") }
}

/// The table for people.
fn text(base: &Finished, others: &[Finished], table: &Table) -> String {
    let names: Vec<String> = others.iter().map(|run| run.config.heading()).collect();
    let width = names.iter().chain([&base.config.heading()]).map(|name| name.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "{} · {} · compared with {}\n\n{:<width$}  questions   base  score  difference     95 % interval  better on       p\n",
        table.benchmark,
        table.metric,
        base.config.heading(),
        ""
    );
    for (name, Row { comparison, .. }) in names.iter().zip(&table.rows) {
        let Comparison { n, scores, difference, interval, better, p, clear } = comparison;
        let star = if *clear { "*" } else { " " };
        let interval = format!("{:+.2} to {:+.2}", interval[0], interval[1]);
        let better = format!("{}, {}", better[0], better[1]);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{name:<width$}  {n:>9} {:>6.2} {:>6.2} {difference:>+10.2}{star} {interval:>16}  {better:>9}  {:>6}",
            scores[0],
            scores[1],
            p_value(*p)
        );
    }
    let clear = table.rows.iter().filter(|row| row.comparison.clear).count();
    let _ = write!(
        text,
        "\n*: the data carry the difference: the interval (paired bootstrap) leaves out 0, and p (McNemar's exact test) is below 0.05.\n\
         {} of {} do; the others may be chance. \"better on\": questions that only the base, and only the run, gets right.",
        clear,
        count(table.rows.len(), "difference")
    );
    text
}
