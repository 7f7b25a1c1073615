//! The command line: [`args`](Args) as typed, a plan checked before any weight is read, one file a subcommand.

mod args;
mod ask;
mod compare;
mod eval;
mod list;
mod plan;
mod prune;
mod score;
mod trace;

use std::io::Write;

pub use args::Args;
use args::Command;
use serde::Serialize;

/// Runs a subcommand.
///
/// # Errors
/// Whatever the user's files or flags make impossible, as one chain of causes.
pub fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Ask(args) => ask::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Score(args) => score::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Prune(args) => prune::run(args),
        Command::List(args) => list::run(&args),
    }
}

/// Writes a line to stdout; unlike `println!`, a closed pipe is an error and no panic.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// Writes one JSON object as a line.
fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(print(&serde_json::to_string(value)?)?)
}

/// Milliseconds, for JSON and for people.
fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
