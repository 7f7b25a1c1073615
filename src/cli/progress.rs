//! The progress of a run: a bar on a terminal, and a line now and then elsewhere.

use std::{
    fmt::Write,
    io::{IsTerminal, stderr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// The longest time without a line, and the shortest between two.
const LONGEST: Duration = Duration::from_secs(30);
const SHORTEST: Duration = Duration::from_secs(5);

/// The progress of questions.
pub(super) struct Progress {
    bar: ProgressBar,
    /// When the last line was written, and for which question; `None` on a terminal.
    last: Option<Mutex<(Instant, u64)>>,
}

/// Shows the progress from `done` of `total` questions on, on stderr.
pub(super) fn progress(total: usize, done: usize) -> Progress {
    if done > 0 && done < total {
        say!("resuming at {done} of {total}");
    }
    let template = "{bar:32} {pos}/{len} questions · {rate} · {elapsed_precise} · {eta_precise} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn Write| {
            let _ = out.write_str(&rate(state.per_sec()));
        },
    );
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    let last = (!stderr().is_terminal()).then(|| Mutex::new((Instant::now(), done as u64)));
    Progress { bar, last }
}

impl Progress {
    /// Counts `delta` questions more.
    pub(super) fn inc(&self, delta: u64) {
        self.bar.inc(delta);
        let (Some(last), Some(all)) = (&self.last, self.bar.length()) else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        let position = self.bar.position();
        if is_due(last.0.elapsed(), position - last.1.min(position), all) && position < all {
            *last = (Instant::now(), position);
            let (rate, left) = (rate(self.bar.per_sec()), HumanDuration(self.bar.eta()));
            say!("{position} of {all} questions, {rate}, {left} left");
        }
    }

    /// Calls `work`, which may print, without the bar.
    pub(super) fn suspend<R>(&self, work: impl FnOnce() -> R) -> R {
        self.bar.suspend(work)
    }

    /// Removes the bar.
    pub(super) fn finish_and_clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Whether a line is due, so long after the last one and so many of `all` questions later.
fn is_due(after: Duration, later: u64, all: u64) -> bool {
    after >= LONGEST || after >= SHORTEST && 10 * later >= all
}

/// Questions a second, or seconds a question where they take longer.
fn rate(per_second: f64) -> String {
    match per_second {
        fast if fast >= 1.0 => format!("{fast:.1}/s"),
        slow if slow > 0.0 => format!("{:.1} s each", 1.0 / slow),
        _ => "–".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_a_second_or_of_a_question() {
        assert_eq!([rate(12.34), rate(0.25), rate(0.0), rate(f64::NAN)], ["12.3/s", "4.0 s each", "–", "–"]);
    }

    #[test]
    fn lines_come_with_time_and_with_tenths() {
        let seconds = Duration::from_secs;
        assert!(is_due(seconds(30), 1, 1000) && is_due(seconds(6), 100, 1000));
        assert!(!is_due(seconds(6), 99, 1000) && !is_due(seconds(1), 1000, 1000));
    }
}
