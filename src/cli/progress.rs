//! The progress of a run.

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on stderr; invisible where stderr is no terminal.
pub(super) fn progress(total: usize, done: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} questions · {elapsed_precise} · {eta_precise} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    bar
}
