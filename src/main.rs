//! The `secateur` command: prints what [`secateur::cli`] does, and turns errors into exit codes.

use std::{io::Write, process::ExitCode};

use clap::Parser;
use secateur::cli::{Args, run};

/// 0; 1 with `error: …` on stderr; 2 for usage, which clap prints.
fn main() -> ExitCode {
    secateur_backends::prepare_host();
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // A stderr that nobody reads must not panic.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `secateur … | head` is not an error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
