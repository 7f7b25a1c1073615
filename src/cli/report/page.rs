//! The page: HTML with everything inside.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    browser,
    finding::{self, beside, finding},
    gallery::{Gallery, Given, Shown},
    html::escape,
    runs::{Group, Stored},
    slide::Slide,
};
use crate::{cli::version::version, plot::Scatter, task::Unit, words::count};

/// One benchmark with one model.
pub(super) struct Part<'a> {
    pub(super) group: &'a Group,
    pub(super) tokens: Scatter,
    /// The chart of times, or the reason why there is none.
    pub(super) times: Result<Scatter, String>,
    pub(super) gallery: Gallery,
    /// The reason why there is no gallery.
    pub(super) missing: Option<String>,
}

const STYLE: &str = include_str!("page.css");
/// The script, which chooses among things that the page has anyway.
const SCRIPT: &str = include_str!("page.js");

/// The whole page. Writing to a string cannot fail, so the results are dropped here.
pub(super) fn page(parts: &[Part]) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Secateur: runs compared</title>\n";
    let _ = write!(html, "<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Runs compared</h1>\n");
    for part in parts {
        section(&mut html, part);
    }
    let _ = write!(html, "<p class=\"note\">Made by secateur {}.</p>\n<script>\n{SCRIPT}</script>\n", version());
    html + "</body>\n</html>\n"
}

fn section(html: &mut String, part: &Part) {
    let Part { group, tokens, times, gallery, missing } = part;
    let (title, rows) = (escape(&group.title()), beside(group));
    let _ = write!(html, "<section>\n<h2>{title}</h2>\n");
    if let Some(finding) = finding(&rows) {
        let _ = writeln!(html, "<p class=\"finding\">{}</p>", escape(&finding));
    }
    settings(html, group);
    choices(html, tokens);
    html.push_str("<div class=\"charts\">\n");
    for chart in [Some(tokens), times.as_ref().ok()].into_iter().flatten() {
        let _ = writeln!(html, "<figure>{}</figure>", chart.inline());
    }
    html.push_str("</div>\n");
    if let Err(reason) = times {
        let _ = writeln!(html, "<p class=\"note\">No chart of times: {}.</p>", escape(reason));
    }
    legend(html, tokens);
    finding::write(html, group, &rows);
    html.push_str("<h3>All metrics</h3>\n");
    table(html, group);
    let notes: BTreeSet<&String> = group.runs.iter().flat_map(|run| &run.notes).collect();
    for note in notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html.push_str("<h3>Where methods disagree</h3>\n");
    if let Some(reason) = missing {
        let _ = writeln!(html, "<p class=\"note\">No images here: {}.</p>", escape(reason));
    }
    gallery.slides.iter().for_each(|slide| write_slide(html, slide));
    gallery.shown.iter().for_each(|shown| write_shown(html, shown));
    browser::write(html, group);
    html.push_str("</section>\n");
}

/// Writes the settings that the runs have in common, in a fold.
fn settings(html: &mut String, group: &Group) {
    let mut places: Vec<String> =
        group.runs.iter().map(|run| run.place().unwrap_or(run.config.backend.clone())).collect();
    places.sort_unstable();
    places.dedup();
    let dates = group.runs.iter().filter_map(|run| Some(run.cost.as_ref()?.session.as_ref()?.date.clone()));
    let dates: BTreeSet<String> = dates.map(|date| date.chars().take(10).collect()).collect();
    let dates = if dates.is_empty() { String::new() } else { format!(" on {}", Vec::from_iter(dates).join(" and ")) };
    let (questions, settings) = (group.runs[0].answers.len(), group.settings());
    let summary = match group.runs[0].config.limit {
        Some(_) => settings,
        None => format!("{}, {settings}", count(questions, "question")),
    };
    let _ = writeln!(
        html,
        "<details><summary>{}</summary>\n<p class=\"note\">{}. Answered on {}{}. Checkpoint {:.12}, questions {:.12} \
         (SHA-256).</p></details>",
        escape(&summary),
        escape(group.task.card().about),
        escape(&places.join("; ")),
        escape(&dates),
        escape(&group.runs[0].config.checkpoint_sha256),
        escape(&group.runs[0].config.data_sha256),
    );
}

/// Writes the boxes that show and hide methods in the charts.
fn choices(html: &mut String, chart: &Scatter) {
    html.push_str("<div class=\"methods\">\n");
    for (i, series) in chart.series.iter().enumerate() {
        let name = escape(&series.name);
        let _ = writeln!(html, "<label><input type=\"checkbox\" value=\"{i}\" checked> {name}</label>");
    }
    html.push_str("</div>\n");
}

/// Writes the meaning of the signs in the charts.
fn legend(html: &mut String, chart: &Scatter) {
    let mut signs = vec!["grey band: the best that any run reaches with so little"];
    if chart.baseline.is_some() {
        signs.push("dashes: without pruning");
    }
    if chart.series.iter().any(|series| series.measured.iter().any(|point| point.error.is_some())) {
        signs.push("bars: one standard error");
    }
    if chart.series.iter().any(|series| !series.published.is_empty()) {
        signs.push("hollow: what papers report");
    }
    let _ = writeln!(html, "<p class=\"note\">{}.</p>", signs.join("; "));
}

fn write_slide(html: &mut String, slide: &Slide) {
    // A sign that ends a script must not be in one.
    let data = serde_json::to_string(slide).unwrap_or_default().replace('<', "\\u003c");
    let methods: String = slide
        .methods
        .iter()
        .enumerate()
        .map(|(i, name)| format!("<option value=\"{i}\">{}</option>", escape(name)))
        .collect();
    let last = slide.steps.first().map_or(0, |steps| steps.len().saturating_sub(1));
    let _ = writeln!(
        html,
        "<div class=\"question slide\" hidden>\n<p>{}</p>\n<canvas></canvas>\n<p><label>Method <select>{methods}</select></label>\n\
         <label>fewer tokens <input type=\"range\" min=\"0\" max=\"{last}\" value=\"0\"></label></p>\n<output></output>\n\
         <script type=\"application/json\">{data}</script>\n</div>",
        escape(&slide.question)
    );
}

fn write_shown(html: &mut String, shown: &Shown) {
    let _ = write!(html, "<div class=\"question\">\n<p>{}", escape(&shown.question));
    if !shown.right.is_empty() {
        let _ = write!(html, "\nright answer: <b>{}</b>", escape(&shown.right));
    }
    html.push_str("</p>\n<div class=\"kept\">\n");
    // A run without pruning has the image as it is.
    let (whole, pruned): (Vec<_>, Vec<_>) = shown.answers.iter().partition(|given| given.overlay.is_empty());
    match whole.first() {
        Some(given) => figure(html, &shown.image, given, shown.wide),
        None => {
            let seen = Given {
                run: "as the model sees it".to_owned(),
                text: String::new(),
                is_right: None,
                overlay: String::new(),
            };
            figure(html, &shown.image, &seen, shown.wide);
        }
    }
    for given in pruned {
        figure(html, &given.overlay, given, shown.wide);
    }
    html.push_str("</div>\n</div>\n");
}

fn figure(html: &mut String, image: &str, given: &Given, wide: bool) {
    let method = escape(&given.run);
    let class = if wide { " class=\"strip\"" } else { "" };
    let _ = write!(html, "<figure{class}><img src=\"{image}\" alt=\"{method}\" loading=\"lazy\"><figcaption>{method}");
    if !given.text.is_empty() {
        let (class, sign) = match given.is_right {
            Some(true) => ("r", "✓ "),
            Some(false) => ("w", "✗ "),
            None => ("", ""),
        };
        let _ = write!(html, ": <b class=\"{class}\">{sign}{}</b>", escape(&given.text));
    }
    html.push_str("</figcaption></figure>\n");
}

/// The table of every metric of every run, in the benchmark's order.
fn table(html: &mut String, group: &Group) {
    html.push_str("<div class=\"wide\">\n<table>\n<thead><tr><th>run</th>");
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in group.runs.iter().flat_map(|run| &run.metrics) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let card = group.task.card();
    for name in &names {
        let unit = if card.unit_of(name) == Unit::Share { ", %" } else { "" };
        let _ = write!(html, "<th>{}{unit}</th>", escape(&name.replace('_', " ")));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let number =
        |run: &Stored, name: &str| run.metrics.iter().find(|(other, _)| other == name).and_then(|(_, value)| *value);
    for run in &group.runs {
        let _ = write!(html, "<tr><td>{}</td>", escape(&run.name()));
        for name in &names {
            let unit = card.unit_of(name);
            let error = run.error(group.task).filter(|_| *name == card.headline(run.config.protocol));
            let error = error.map_or_else(String::new, |error| format!(" ± {error:.2}"));
            let value = number(run, name).map(|value| format!("{:.2}{error}", unit.in_papers(value)));
            let _ = write!(html, "<td>{}</td>", value.unwrap_or_else(|| "–".to_owned()));
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}
