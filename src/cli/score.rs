//! `secateur score`: an answers file against a benchmark's labels.

use super::{args::ScoreArgs, print, print_json};
use crate::task::{Answer, task};

pub(super) fn run(args: ScoreArgs) -> anyhow::Result<()> {
    let task = task(&args.benchmark)?;
    let answers = Answer::read_all(&args.answers)?;
    let report = task.score(&args.data, &answers, args.protocol)?;
    print(&report.table())?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}
