//! `secateur report`: finished runs as one page that needs no other file.

mod gallery;
mod page;
mod runs;

use gallery::{Gallery, gallery, questions};
use page::{Part, page};
use runs::{Group, groups};
use secateur_backends::{Target, resolve};

use super::{args::ReportArgs, make_folder, print};
use secateur_weights::stay_offline;

use crate::{
    files::write_file,
    image::png,
    plot::{Point, Scatter, Series},
    published::figures,
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
            match gallery(group, &questions(group, args.gallery), target) {
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
        let times = by_time(group, &gallery, target.backend);
        let name = format!("{}-{}", group.task.name(), group.model);
        // Groups with the same benchmark and model but other settings are numbered.
        let same = names.iter().filter(|other| **other == name).count();
        names.push(name.clone());
        let name = if same == 0 { name } else { format!("{name}-{}", same + 1) };
        for (what, chart) in [("tokens", Some(&tokens)), ("time", times.as_ref())] {
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
    Ok(print(&args.out.join("report.html").display().to_string())?)
}

/// The chart of scores against budgets, with the figures of papers.
fn by_tokens(group: &Group) -> Scatter {
    let mut series: Vec<Series> = Vec::new();
    let mut baseline = None;
    for run in &group.runs {
        match (run.score(group.task), run.config.kept()) {
            (Some(score), None) => baseline = Some(score),
            (Some(y), Some(tokens)) => {
                of(&mut series, &run.config.method, &run.method()).measured.push(Point { x: tokens as f64, y })
            }
            (None, _) => {}
        }
    }
    let usual = group.runs.iter().any(|run| run.config.is_usual());
    for figure in figures(&group.model, group.task.name()).filter(|_| usual) {
        if let Some(tokens) = figure.tokens {
            of(&mut series, &figure.method, &figure.method).published.push(Point { x: tokens as f64, y: figure.score });
        }
    }
    scatter(group, "visual tokens kept per crop or frame", true, baseline, series)
}

/// The chart of scores against the time to the first token; `None` if the time was not measured.
fn by_time(group: &Group, gallery: &Gallery, backend: &str) -> Option<Scatter> {
    let mut series: Vec<Series> = Vec::new();
    for (run, time) in group.runs.iter().zip(&gallery.first_token) {
        if let (Some(y), Some(time)) = (run.score(group.task), time) {
            of(&mut series, &run.config.method, &run.method()).measured.push(Point { x: time.as_secs_f64() * 1e3, y });
        }
    }
    let x = format!("ms to the first token, {backend}, median of {} questions", gallery.timed);
    (!series.is_empty()).then(|| scatter(group, &x, false, None, series))
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
    Scatter { title: group.title(), x: x.to_owned(), y: headline.replace('_', " ") + unit, doublings, baseline, series }
}
