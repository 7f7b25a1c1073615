//! `secateur report`: finished runs as one page that needs no other file.

mod browser;
mod finding;
mod gallery;
mod graded;
mod html;
mod page;
mod runs;
mod slide;

use std::collections::BTreeSet;

use finding::{beside, finding};
use gallery::{Gallery, gallery, questions};
use page::{Part, page};
use runs::{Group, Stored, groups};
use secateur_backends::{Target, resolve};

use super::{args::ReportArgs, make_folder, print, print_json};
use secateur_weights::stay_offline;
use serde_json::json;

use crate::{
    files::write_file,
    image::png,
    plot::{Point, Scatter, Series},
    pruner::Budget,
    published::figures,
    statistics::seeds,
    task::Unit,
};

pub(super) fn run(args: &ReportArgs) -> anyhow::Result<()> {
    // A run's folder may come from anybody: the files that it names are read if they are here, and never fetched.
    stay_offline();
    let groups = groups(&args.runs)?;
    let target = Target { backend: resolve(args.target.backend.as_deref())?, device: args.target.device };
    args.target.use_reference();
    make_folder(&args.out)?;
    let mut parts = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for group in &groups {
        let (gallery, missing) = if args.gallery == 0 {
            (Gallery::default(), Some("left out by --gallery 0".to_owned()))
        } else {
            match gallery(group, &questions(group, args.gallery, args.measure), target) {
                Ok(gallery) if gallery.shown.is_empty() => {
                    (gallery, Some("there is no image with a question on which the runs disagree".to_owned()))
                }
                Ok(gallery) => (gallery, None),
                // The rest of the page needs no model.
                Err(error) => (Gallery::default(), Some(format!("{error:#}"))),
            }
        };
        if let Some(reason) = &missing {
            say!("note: {} has no gallery: {reason}", group.task.name());
        }
        let tokens = by_tokens(group);
        let times = if args.measure { measured_here(group, &gallery, target.backend) } else { by_time(group) };
        let name = format!("{}-{}", group.task.name(), group.model);
        // Groups with the same benchmark and model but other settings are numbered.
        let same = names.iter().filter(|other| **other == name).count();
        names.push(name.clone());
        let name = if same == 0 { name } else { format!("{name}-{}", same + 1) };
        for (what, chart) in [("tokens", Some(&tokens)), ("time", times.as_ref().ok())] {
            let [svg, image] = ["svg", "png"].map(|kind| args.out.join(format!("{name}-{what}.{kind}")));
            match chart {
                Some(chart) => {
                    write_file(&svg, chart.svg().as_bytes())?;
                    write_file(&image, &png(&chart.image()))?;
                }
                // Charts of an earlier report would belong to another page.
                None => [svg, image].iter().for_each(|old| drop(std::fs::remove_file(old))),
            }
        }
        parts.push(Part { group, tokens, times, gallery, missing });
    }
    write_file(&args.out.join("report.html"), page(&parts).as_bytes())?;
    let page = args.out.join("report.html");
    print(&page.display().to_string())?;
    if args.json {
        let section = |part: &Part| json!({ "title": part.group.title(), "finding": finding(&beside(part.group)) });
        print_json(&json!({ "page": page, "sections": parts.iter().map(section).collect::<Vec<_>>() }))?;
    }
    Ok(())
}

/// The chart of scores against budgets, with the figures of papers.
fn by_tokens(group: &Group) -> Scatter {
    let baseline = group.base().and_then(|run| run.score(group.task));
    let mut series = measured(group, |run| Some(run.config.kept()? as f64));
    let usual = group.runs.iter().any(|run| run.config.is_usual());
    for figure in figures(&group.model, group.task.name()).filter(|_| usual) {
        if let Some(Budget::Tokens(tokens)) = figure.tokens {
            let point = Point { x: tokens as f64, y: figure.score, error: None };
            of(&mut series, &figure.method, &figure.method).published.push(point);
        }
    }
    scatter(group, "visual tokens kept per crop or frame", true, baseline, series)
}

/// The chart of scores against the time to the first token that the runs had.
///
/// # Errors
/// The reason why there is none: a time is not known, or the runs were not all timed at one place.
fn by_time(group: &Group) -> Result<Scatter, String> {
    let places: BTreeSet<Option<String>> = group.runs.iter().map(Stored::place).collect();
    if places.contains(&None) {
        return Err("the time of a run is not known; --measure measures all here".to_owned());
    }
    if places.len() > 1 {
        return Err("the runs were not all timed on one device; --measure measures all here".to_owned());
    }
    let series = measured(group, |run| Some(run.cost.as_ref()?.ttft_ms_median));
    if series.is_empty() {
        Err("no run has a score".to_owned())
    } else {
        Ok(scatter(group, "ms to the first token, median", false, None, series))
    }
}

/// The chart of scores against the time to the first token that the gallery measured.
///
/// # Errors
/// When nothing was measured.
fn measured_here(group: &Group, gallery: &Gallery, backend: &str) -> Result<Scatter, String> {
    let time = |run: &Stored| {
        let place = group.runs.iter().position(|other| std::ptr::eq(other, run))?;
        Some(gallery.first_token.get(place)?.as_ref()?.as_secs_f64() * 1e3)
    };
    let series = measured(group, time);
    let x = format!("ms to the first token, {backend}, median of {} questions", gallery.timed);
    if series.is_empty() { Err("nothing was measured".to_owned()) } else { Ok(scatter(group, &x, false, None, series)) }
}

/// A point for each method and budget: runs that differ by their seeds are one, at the mean of both coordinates.
fn measured(group: &Group, x: impl Fn(&Stored) -> Option<f64>) -> Vec<Series> {
    let mut series: Vec<Series> = Vec::new();
    for (i, run) in group.runs.iter().enumerate() {
        let is_same = |other: &&Stored| (other.method(), other.config.kept()) == (run.method(), run.config.kept());
        if group.runs[..i].iter().any(|other| is_same(&other)) {
            continue;
        }
        let same = group.runs.iter().filter(is_same);
        let found: Vec<(f64, f64)> = same.filter_map(|run| Some((x(run)?, run.score(group.task)?))).collect();
        let mean = |of: fn(&(f64, f64)) -> f64| found.iter().map(of).sum::<f64>() / found.len() as f64;
        if !found.is_empty() {
            let several = seeds(&found.iter().map(|(_, y)| *y).collect::<Vec<_>>());
            let error = several.map_or_else(|| run.error(group.task), |several| Some(several.standard_error));
            let point = Point { x: mean(|(x, _)| *x), y: mean(|(_, y)| *y), error };
            of(&mut series, &run.config.method, &run.method()).measured.push(point);
        }
    }
    series
}

fn of<'a>(series: &'a mut Vec<Series>, method: &str, name: &str) -> &'a mut Series {
    let at = series.iter().position(|one| one.name == name).unwrap_or_else(|| {
        series.push(Series {
            method: method.to_owned(),
            name: name.to_owned(),
            measured: Vec::new(),
            published: Vec::new(),
        });
        series.len() - 1
    });
    &mut series[at]
}

fn scatter(group: &Group, x: &str, doublings: bool, baseline: Option<f64>, series: Vec<Series>) -> Scatter {
    let headline = group.task.card().headline(group.runs[0].config.protocol);
    let unit = if group.task.card().unit == Unit::Share { ", %" } else { "" };
    Scatter {
        title: group.title(),
        x: x.to_owned(),
        y: headline.replace('_', " ") + unit,
        doublings,
        front: true,
        baseline,
        series,
    }
}
