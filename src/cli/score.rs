//! `secateur score`: an answers file against a benchmark's labels.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::{args::ScoreArgs, data_folder, judge, print, print_json};
use crate::{
    eval::{ANSWERS, read_config},
    files::write_file,
    task::{Answer, MustAnswer, Task, holes, key, task},
    words::count,
};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    if args.upload.is_some() && task.card().upload.is_none() {
        usage!("{} has no server that takes a file; leave out --upload", task.name());
    }
    let (path, run) = match args.answers.is_dir() {
        true => (args.answers.join(ANSWERS), Some(read_config(&args.answers)?)),
        false => (args.answers.clone(), None),
    };
    if let Some(run) = run.as_ref().filter(|run| run.benchmark != task.name()) {
        bail!("{}: a run of {}, not of {}", args.answers.display(), run.benchmark, task.name());
    }
    let (answers, broken) = task.answers(&path)?;
    let data = match args.data {
        // Data that are here are read, but nothing is fetched for answers that bring their labels along.
        None if !task.needs_data(&answers, args.protocol)
            && args.upload.is_none()
            && !Path::new(task.card().data).is_dir() =>
        {
            PathBuf::new()
        }
        given => data_folder(task, given)?,
    };
    check_questions(task, &data, &answers, &path)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut report = judge::score(task, &data, &answers, args.protocol, &args.judge, folder)?;
    if broken > 0 {
        let are = if broken == 1 { "is no answer and is" } else { "are no answers and are" };
        report.notes.push(format!("{} of the file {are} skipped", count(broken, "line")));
    }
    match &args.upload {
        Some(path) => {
            write_file(path, &task.upload(&data, &answers)?)?;
            report.notes.extend(holes(task, &data, &answers)?);
        }
        None if report.metrics.is_empty() && task.card().upload.is_some() => {
            report.notes.push("--upload FILE writes what the server takes".to_owned());
        }
        None => {}
    }
    print(&report.table(run.map(|run| run.heading()).as_deref()))?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}

/// Refuses answers of which none is to a question of the benchmark, where its questions are there; labels may be missing.
fn check_questions(task: &dyn Task, data: &Path, answers: &[Answer], path: &Path) -> anyhow::Result<()> {
    if data.as_os_str().is_empty() || answers.is_empty() {
        return Ok(());
    }
    // The images need not be there to know the questions.
    let asked: HashSet<String> = match (task.samples(data), task.uploaded(data)) {
        (Ok(samples), _) => samples.iter().map(|sample| key(&sample.question_id)).collect(),
        (_, Ok(MustAnswer::Ids(ids))) => ids.iter().map(key).collect(),
        _ => return Ok(()),
    };
    if !answers.iter().any(|answer| asked.contains(&key(&answer.question_id))) {
        let (name, first) = (task.name(), &answers[0].question_id);
        bail!(
            "{}: no answer is to a question of {name} in {}; the first is to {first}",
            path.display(),
            data.display()
        );
    }
    Ok(())
}
