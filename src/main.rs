//! The `secateur` command: prints what [`secateur::cli`] does, and turns errors into exit codes.

#![forbid(unsafe_code)]

use std::{io::Write, process::ExitCode};

use secateur::cli::{Unread, Usage, parse, plain, run, without_numbers};

/// 0; 1 with `error: …` on stderr; 2 for wrong usage.
fn main() -> ExitCode {
    secateur_backends::prepare_host();
    let args = match parse(std::env::args_os()) {
        Ok(args) => args,
        Err(Unread::Clap(error)) => return usage(&error),
        Err(Unread::File(error)) => return failed(&error),
    };
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Reports an error.
fn failed(error: &anyhow::Error) -> ExitCode {
    // A stderr that nobody reads must not panic.
    let _ = writeln!(std::io::stderr(), "error: {}", plain(&without_numbers(&format!("{error:#}"))));
    if error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Reports wrong arguments with the message of clap, without the control characters that a terminal would obey.
fn usage(error: &clap::Error) -> ExitCode {
    let has_controls = |arg: std::ffi::OsString| arg.to_string_lossy().chars().any(|c| c.is_control() && c != '\n');
    if !error.use_stderr() || !std::env::args_os().any(has_controls) {
        error.exit();
    }
    let _ = write!(std::io::stderr(), "{}", plain(&error.render().to_string()));
    ExitCode::from(2)
}

/// `secateur … | head` is not an error.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}
