//! `secateur score`: an answers file against a benchmark's labels.

use std::path::PathBuf;

use super::{args::ScoreArgs, print, print_json};
use crate::{eval::write_file, task::task};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let (answers, broken) = task.answers(&args.answers)?;
    let data = args.data.unwrap_or_else(|| PathBuf::from(task.default_data()));
    let mut report = task.score(&data, &answers, args.protocol)?;
    if broken > 0 {
        report.notes.push(format!("{broken} line(s) of the file are no answers and are passed over"));
    }
    if let Some(path) = &args.upload {
        let Some(upload) = task.upload(&data, &answers)? else {
            anyhow::bail!("{} has no server that takes a file; leave out --upload", task.name());
        };
        write_file(path, &upload.bytes)?;
    }
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}
