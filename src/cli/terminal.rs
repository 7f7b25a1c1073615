//! Text for a terminal: text of files, hubs, judges and models, with control characters spelt out.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io::{IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Spells out control characters in `text`, but for line breaks and tabs.
pub fn plain(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && c != '\n' && c != '\t' || is_invisible(c);
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if obeyed(c) { c.escape_unicode().to_string() } else { c.to_string() }).collect())
}

/// Removes the system's error numbers from an error's sentence.
pub fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain += part.split_once(')').map_or(part, |(_, rest)| rest);
    }
    plain
}

/// Whether a character turns the direction of the text after it.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text for stdout: `text` as it is, or with control characters spelt out if stdout is a terminal.
pub(super) fn for_stdout(text: &str) -> Cow<'_, str> {
    if std::io::stdout().is_terminal() { plain(text) } else { Cow::Borrowed(text) }
}

/// Whether stdout is for JSON alone.
static JSON_ALONE: AtomicBool = AtomicBool::new(false);

/// Sends text for people to stderr from now on, if `alone`.
pub(super) fn keep_stdout_for_json(alone: bool) {
    JSON_ALONE.store(alone, Ordering::Relaxed);
}

/// Whether text for people goes to stderr.
pub(super) fn is_stdout_for_json() -> bool {
    JSON_ALONE.load(Ordering::Relaxed)
}

/// The lines that were written to stderr.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Writes a line to stderr. The program goes on if nobody reads stderr.
pub(super) fn say(text: &str) {
    SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned());
    log(text);
}

/// Writes a line to stderr that nothing is kept of: a server writes one for every request.
pub(super) fn log(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", plain(text));
}

/// Writes a line to stderr that was not written before: workers all have the same notes.
pub(super) fn say_once(text: &str) {
    if !SAID.lock().unwrap_or_else(PoisonError::into_inner).contains(text) {
        say(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(plain("a\n\tb – ü"), "a\n\tb – ü");
        assert_eq!(plain("\x1b]0;x\x07\u{9b}2J\r\u{202e}"), "\\u{1b}]0;x\\u{7}\\u{9b}2J\\u{d}\\u{202e}");
    }
}
