//! `secateur score`: an answers file against a benchmark's labels.

use std::path::{Path, PathBuf};

use anyhow::bail;

use super::{args::ScoreArgs, data_folder, judge, print, print_json};
use crate::{
    files::write_file,
    task::{holes, task},
    words::count,
};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    if args.upload.is_some() && task.card().upload.is_none() {
        bail!("{} has no server that takes a file; leave out --upload", task.name());
    }
    let (answers, broken) = task.answers(&args.answers)?;
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
    let folder = args.answers.parent().unwrap_or(Path::new(""));
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
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}
