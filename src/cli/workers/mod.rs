//! One run on several devices: a worker process for each, which asks the questions that this process hands out.
//!
//! A worker is this program with its own command line again, told by [`VARIABLE`]. It reads orders from stdin and writes answers to stdout, a
//! line of JSON each ([`protocol`]). Only this process writes to run folders, so that whatever ends a worker loses no answer: its questions are
//! handed out again.

mod member;
mod plan;
mod pool;
mod protocol;
mod serve;

pub(in crate::cli) use plan::WorkerArgs;
pub(in crate::cli) use pool::Pool;
pub(in crate::cli) use serve::serve;

/// The variable that makes this program a worker. Its value is the number of the device, or `-` for the one that the backend takes by itself.
const VARIABLE: &str = "SECATEUR_WORKER";

/// Whether this process is a worker.
pub(in crate::cli) fn is_worker() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// The device of this worker, if it is one and was given a device.
pub(in crate::cli) fn own_device() -> Option<usize> {
    std::env::var(VARIABLE).ok()?.parse().ok()
}

/// Ends a worker: an error goes to the process that started it, which prints it.
pub(in crate::cli) fn end(outcome: anyhow::Result<()>) -> anyhow::Result<()> {
    match outcome {
        Err(error) => Ok(protocol::write(&protocol::Reply::Failed { message: format!("{error:#}") })?),
        Ok(()) => Ok(()),
    }
}
