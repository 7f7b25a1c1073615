//! What the runs of a section show: the sentence at its beginning, and the table of comparisons.

use std::fmt::Write;

use super::{
    html::escape,
    runs::{Group, Stored},
};
use crate::{
    cli::compare::p_value,
    statistics::{Comparison, compare, seeds},
};

/// The share of the score without pruning, in percent, that a method must keep to be named first.
const GOOD: f64 = 95.0;

/// A run beside the one without pruning.
pub(super) struct Beside<'a> {
    pub(super) run: &'a Stored,
    /// Shares and points as papers give them.
    comparison: Comparison,
    /// The share of the score without pruning, in percent, and half the width of its 95 % interval.
    retained: [f64; 2],
    /// How many times sooner the first token comes, if both were timed at one place.
    sooner: Option<f64>,
}

/// Every run beside the one without pruning; none where that one is missing, or has no marks.
pub(super) fn beside(group: &Group) -> Vec<Beside<'_>> {
    let Some(base) = group.base() else { return Vec::new() };
    let others = group.runs.iter().filter(|run| run.config.kept().is_some());
    let one = |run| {
        let comparison = compare(base.marks.as_ref()?, run_marks(run)?)?;
        let unit = group.task.card().unit;
        let comparison = comparison.map(|score| unit.in_papers(score));
        let percent = 100.0 / comparison.scores[0];
        let half = (comparison.interval[1] - comparison.interval[0]) / 2.0;
        let retained = [percent * comparison.scores[1], percent * half];
        (comparison.scores[0] > 0.0).then(|| Beside { run, comparison, retained, sooner: sooner(base, run) })
    };
    others.filter_map(one).collect()
}

fn run_marks(run: &Stored) -> Option<&crate::statistics::Marks> {
    run.marks.as_ref()
}

fn sooner(base: &Stored, run: &Stored) -> Option<f64> {
    let same = base.place().is_some() && base.place() == run.place();
    let time = |run: &Stored| run.cost.as_ref().map(|cost| cost.ttft_ms_median).filter(|time| *time > 0.0);
    (same).then(|| Some(time(base)? / time(run)?)).flatten()
}

/// The sentence with the finding: the smallest budget at which a method keeps nearly all of the score, and that method.
pub(super) fn finding(rows: &[Beside]) -> Option<String> {
    let mut budgets: Vec<usize> = rows.iter().filter_map(|row| row.run.config.kept()).collect();
    budgets.sort_unstable();
    budgets.dedup();
    let best_at = |budget: &usize| {
        let own = rows.iter().filter(|row| row.run.config.kept() == Some(*budget));
        own.max_by(|a, b| a.retained[0].total_cmp(&b.retained[0]))
    };
    let good = budgets.iter().filter_map(best_at).find(|row| row.retained[0] >= GOOD);
    let Beside { run, comparison, retained, sooner } =
        good.or_else(|| rows.iter().max_by(|a, b| a.retained[0].total_cmp(&b.retained[0])))?;
    let before = run.cost.as_ref().map(|cost| cost.visual_tokens_before).filter(|tokens| tokens.fract() == 0.0);
    let of = before.map_or_else(String::new, |tokens| format!(" of {tokens:.0}"));
    let sooner = sooner.map_or_else(String::new, |times| match times >= 1.0 {
        true => format!(", and the first token comes {times:.1} times sooner"),
        false => format!(", and the first token comes {:.1} times later", 1.0 / times),
    });
    let sure = if comparison.clear { "" } else { "; the loss may be chance" };
    Some(format!(
        "At {}{of} tokens {} keeps {:.1} ± {:.1} % of the score without pruning{sooner}{sure}.",
        run.config.kept().unwrap_or_default(),
        run.method(),
        retained[0],
        retained[1],
    ))
}

/// Writes the table of comparisons with the run without pruning.
pub(super) fn write(html: &mut String, group: &Group, rows: &[Beside]) {
    if rows.is_empty() {
        return;
    }
    html.push_str(
        "<h3>Beside no pruning, on the same questions</h3>\n<div class=\"wide\">\n<table>\n<thead><tr><th>run</th>",
    );
    html.push_str("<th>score</th><th>kept, %</th><th>difference</th><th>95 % interval</th><th>only without</th><th>only with</th>");
    html.push_str("<th>p</th><th>first token</th></tr></thead>\n<tbody>\n");
    for Beside { run, comparison, retained, sooner } in rows {
        let Comparison { scores, difference, interval, better, p, clear, .. } = comparison;
        let star = if *clear { "*" } else { "" };
        let sooner = sooner.map_or_else(|| "–".to_owned(), |times| format!("{times:.1}×"));
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.1} ± {:.1}</td><td>{difference:+.2}{star}</td><td>{:+.2} to {:+.2}</td>\
             <td>{}</td><td>{}</td><td>{}</td><td>{sooner}</td></tr>",
            escape(&run.name()),
            scores[1],
            retained[0],
            retained[1],
            interval[0],
            interval[1],
            better[0],
            better[1],
            escape(&p_value(*p))
        );
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
    html.push_str(
        "<p class=\"note\">*: the data carry the difference: its interval (paired bootstrap) leaves out 0, and p (McNemar's exact test) is \
         below 0.05. Other differences may be chance. \"Only without\", \"only with\": questions that only the run without, and only the \
         run with pruning, gets right.</p>\n",
    );
    over_seeds(html, group);
}

/// Writes a sentence for each method and budget with several seeds.
fn over_seeds(html: &mut String, group: &Group) {
    let mut done: Vec<(String, Option<usize>)> = Vec::new();
    for run in &group.runs {
        let key = (run.method(), run.config.kept());
        if done.contains(&key) {
            continue;
        }
        let same = group.runs.iter().filter(|other| (other.method(), other.config.kept()) == key);
        let scores: Vec<f64> = same.filter_map(|run| run.score(group.task)).collect();
        if let (Some(found), (method, Some(tokens))) = (seeds(&scores), &key) {
            let (mean, half, count) = (found.mean, found.half_width, scores.len());
            let _ = writeln!(
                html,
                "<p>{} at {tokens} tokens: {mean:.2} ± {half:.2}, the mean of {count} seeds and its 95 % interval.</p>",
                escape(method)
            );
        }
        done.push(key);
    }
}
