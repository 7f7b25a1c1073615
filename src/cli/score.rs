//! `secateur score`: an answers file against a benchmark's labels.

use std::path::Path;

use super::{args::ScoreArgs, data_folder, judge, print, print_json};
use crate::{eval::write_file, task::task};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let (answers, broken) = task.answers(&args.answers)?;
    let data = data_folder(task, args.data)?;
    let folder = args.answers.parent().unwrap_or(Path::new(""));
    let mut report = judge::score(task, &data, &answers, args.protocol, &args.judge, folder)?;
    if broken > 0 {
        report.notes.push(format!("{broken} line(s) of the file are no answers and are passed over"));
    }
    match (&args.upload, task.upload_name()) {
        (Some(path), Some(_)) => write_file(path, &task.upload(&data, &answers)?)?,
        (Some(_), None) => anyhow::bail!("{} has no server that takes a file; leave out --upload", task.name()),
        (None, Some(_)) if report.metrics.is_empty() => {
            report.notes.push("--upload FILE writes what the server takes".to_owned());
        }
        (None, _) => {}
    }
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}
