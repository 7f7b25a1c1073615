//! The page: HTML with everything inside.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    gallery::Gallery,
    runs::{Group, Stored},
};
use crate::plot::Scatter;

/// One benchmark with one model.
pub(super) struct Part<'a> {
    pub(super) group: &'a Group,
    pub(super) tokens: Scatter,
    pub(super) times: Option<Scatter>,
    pub(super) gallery: Gallery,
    /// The reason why there is no gallery.
    pub(super) missing: Option<String>,
}

const STYLE: &str = "\
:root { color-scheme: light dark; --grid: #ddd; --card: #f6f6f6; }
@media (prefers-color-scheme: dark) { :root { --grid: #444; --card: #1e1e1e; } body { background: #121212; color: #e8e8e8; } }
body { font: 16px/1.45 system-ui, sans-serif; margin: 0 auto; max-width: 1400px; padding: 12px; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.25rem; margin-top: 2rem; } h3 { font-size: 1rem; }
.charts { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.charts figure { background: var(--card); border-radius: 8px; margin: 0; padding: 8px; }
.charts svg { display: block; height: auto; width: 100%; }
.wide { margin-top: 16px; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--grid); padding: 4px 10px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.question { background: var(--card); border-radius: 8px; margin: 12px 0; padding: 10px; }
.question p { margin: 0 0 8px; overflow-wrap: anywhere; white-space: pre-line; }
.kept { display: flex; flex-wrap: wrap; gap: 12px; }
.kept figure { margin: 0; max-width: 100%; width: 240px; }
.kept figure.strip { width: 100%; }
.kept img { display: block; max-width: 100%; }
figcaption { font-size: .9rem; overflow-wrap: anywhere; }
.note { font-size: .9rem; opacity: .8; }
";

/// The whole page. Writing to a string cannot fail, so the results are dropped here.
pub(super) fn page(parts: &[Part]) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    html += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Secateur: runs compared</title>\n";
    let _ = write!(html, "<style>\n{STYLE}</style>\n</head>\n<body>\n<h1>Runs compared</h1>\n");
    for part in parts {
        section(&mut html, part);
    }
    let _ = write!(html, "<p class=\"note\">Made by secateur {}.</p>\n</body>\n</html>\n", env!("CARGO_PKG_VERSION"));
    html
}

fn section(html: &mut String, part: &Part) {
    let Part { group, tokens, times, gallery, missing } = part;
    let mut backends: Vec<&str> = group.runs.iter().map(|run| run.config.backend.as_str()).collect();
    backends.sort_unstable();
    backends.dedup();
    let (title, about) = (escape(&group.title()), escape(group.task.card().about));
    let _ = write!(html, "<section>\n<h2>{title}</h2>\n<p class=\"note\">{about}; ");
    let (count, settings) = (group.runs[0].answers.len(), escape(&group.settings()));
    let _ = write!(html, "{count} questions, {settings}, answered on {}.", escape(&backends.join(" and ")));
    html.push_str("</p>\n<div class=\"charts\">\n");
    for chart in [Some(tokens), times.as_ref()].into_iter().flatten() {
        let _ = writeln!(html, "<figure>{}</figure>", chart.inline());
    }
    html.push_str("</div>\n");
    table(html, group);
    let notes: BTreeSet<&String> = group.runs.iter().flat_map(|run| &run.notes).collect();
    for note in notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html.push_str("<h3>Where methods disagree</h3>\n");
    if let Some(reason) = missing {
        let _ = writeln!(html, "<p class=\"note\">No images here: {}.</p>", escape(reason));
    }
    for shown in &gallery.shown {
        let _ = write!(html, "<div class=\"question\">\n<p>{}</p>\n<div class=\"kept\">\n", escape(&shown.question));
        // A run without pruning has the image as it is.
        let (whole, pruned): (Vec<_>, Vec<_>) = shown.answers.iter().partition(|(.., image)| image.is_empty());
        let (name, answer) = whole.first().map_or(("as the model sees it", ""), |(name, answer, _)| (name, answer));
        figure(html, &shown.image, name, answer, shown.wide);
        for (method, answer, image) in pruned {
            figure(html, image, method, answer, shown.wide);
        }
        html.push_str("</div>\n</div>\n");
    }
    html.push_str("</section>\n");
}

fn figure(html: &mut String, image: &str, method: &str, answer: &str, wide: bool) {
    let method = escape(method);
    let class = if wide { " class=\"strip\"" } else { "" };
    let _ = write!(html, "<figure{class}><img src=\"{image}\" alt=\"{method}\" loading=\"lazy\"><figcaption>{method}");
    if !answer.is_empty() {
        let _ = write!(html, ": <b>{}</b>", escape(answer));
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
    for name in &names {
        let _ = write!(html, "<th>{}</th>", escape(&name.replace('_', " ")));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    let number =
        |run: &Stored, name: &str| run.metrics.iter().find(|(other, _)| other == name).and_then(|(_, value)| *value);
    let is_share = |name: &&str| group.runs.iter().filter_map(|run| number(run, name)).all(|value| value <= 1.0);
    let digits: Vec<usize> = names.iter().map(|name| if is_share(name) { 4 } else { 2 }).collect();
    for run in &group.runs {
        let _ = write!(html, "<tr><td>{}</td>", escape(&run.name()));
        for (name, digits) in names.iter().zip(&digits) {
            let value = number(run, name).map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"));
            let _ = write!(html, "<td>{value}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
