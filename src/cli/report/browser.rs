//! The questions of a section: the right answer, and each run's answer, marked right or wrong.

use std::fmt::Write;

use super::{graded::Graded, html::escape, runs::Group};
use crate::{
    task::normalise,
    words::{count, excerpt},
};

/// The largest number of questions on a page.
const QUESTIONS: usize = 400;

/// The numbers of the questions that are listed: all, or those on which runs differ where there are too many; and how many there are.
fn listed(group: &Group) -> (Vec<usize>, usize) {
    let all = group.runs.iter().map(|run| run.answers.len()).min().unwrap_or(0);
    if all <= QUESTIONS {
        return ((0..all).collect(), all);
    }
    let differ = |&question: &usize| {
        let mut texts = group.runs.iter().map(|run| normalise(&run.answers[question].text));
        let first = texts.next();
        texts.any(|text| Some(text) != first)
    };
    ((0..all).filter(differ).take(QUESTIONS).collect(), all)
}

/// Writes the table of questions, with choices for the script of the page.
pub(super) fn write(html: &mut String, group: &Group) {
    let graded = Graded::new(group);
    let (questions, all) = listed(group);
    if questions.is_empty() {
        return;
    }
    html.push_str("<h3>Questions</h3>\n");
    if questions.len() < all {
        let shown = count(questions.len(), "question");
        let _ = writeln!(html, "<p class=\"note\">{shown} of {all}: the first on which answers differ.</p>");
    }
    write_choices(html, group);
    html.push_str(
        "<div class=\"wide tall\">\n<table class=\"questions\">\n<thead><tr><th>question</th><th>right answer</th>",
    );
    for run in &group.runs {
        let _ = write!(html, "<th>{}</th>", escape(&run.name()));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for question in questions {
        let (mut marks, mut cells) = (String::new(), String::new());
        for run in &group.runs {
            let answer = &run.answers[question];
            let right = graded.mark(run, answer).map(|mark| mark.credit >= 0.5);
            let (mark, class, sign) = match right {
                Some(true) => ('1', "r", "✓ "),
                Some(false) => ('0', "w", "✗ "),
                None => ('-', "", ""),
            };
            marks.push(mark);
            let _ = write!(cells, "<td class=\"{class}\">{sign}{}</td>", escape(&excerpt(&answer.text)));
        }
        let answer = &group.runs[0].answers[question];
        let (asked, right) = (escape(&answer.prompt), escape(&excerpt(&graded.right(answer))));
        let _ = writeln!(html, "<tr data-marks=\"{marks}\"><td>{asked}</td><td>{right}</td>{cells}</tr>");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

/// The choices, which are hidden where no script runs.
fn write_choices(html: &mut String, group: &Group) {
    let first = escape(&group.runs[0].name());
    html.push_str("<div class=\"pick\" hidden>\n<label>Run <select>");
    let from = usize::from(group.runs.len() > 1);
    for (i, run) in group.runs.iter().enumerate().skip(from) {
        let _ = write!(html, "<option value=\"{i}\">{}</option>", escape(&run.name()));
    }
    let _ = write!(
        html,
        "</select></label>\n<label>Show <select><option value=\"\">all questions</option>\
         <option value=\"10\">{first} right, this run wrong</option><option value=\"01\">{first} wrong, this run right</option>\
         <option value=\"00\">both wrong</option><option value=\"11\">both right</option></select></label>\n\
         <label>Order <select><option value=\"\">of the benchmark</option><option value=\"wrong\">most wrong answers first</option>\
         </select></label>\n<span class=\"shown\"></span>\n</div>\n"
    );
}
