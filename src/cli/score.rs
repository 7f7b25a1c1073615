//! `secateur score`: an answers file against a benchmark's labels.

use std::path::PathBuf;

use super::{args::ScoreArgs, print, print_json};
use crate::task::{Answer, task};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let answers = Answer::read_all(&args.answers)?;
    let data = args.data.unwrap_or_else(|| PathBuf::from(task.default_data()));
    let report = task.score(&data, &answers, args.protocol)?;
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}
