//! The progress of a run.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A progress bar on stderr; invisible where stderr is no terminal.
pub(super) fn progress(total: usize, done: usize) -> ProgressBar {
    let template = "{bar:32} {pos}/{len} questions · {rate} · {elapsed_precise} · {eta_precise} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).with_key(
        "rate",
        |state: &ProgressState, out: &mut dyn Write| {
            let _ = out.write_str(&rate(state.per_sec()));
        },
    );
    let bar = ProgressBar::new(total as u64).with_style(style).with_position(done as u64);
    bar.reset_eta();
    bar
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
    use super::rate;

    #[test]
    fn rates_are_of_a_second_or_of_a_question() {
        assert_eq!([rate(12.34), rate(0.25), rate(0.0), rate(f64::NAN)], ["12.3/s", "4.0 s each", "–", "–"]);
    }
}
