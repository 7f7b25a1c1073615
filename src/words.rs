//! Numbers and nouns in sentences.

/// A number with its noun: `1 answer`, `2 answers`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A part of a text that can be shown in a sentence: control characters are escaped, and it is cut after some eighty
/// letters.
pub(crate) fn excerpt(text: &str) -> String {
    const LONGEST: usize = 80;
    let shown = secateur_weights::printable(&text.trim().chars().take(LONGEST).collect::<String>());
    if text.trim().chars().nth(LONGEST).is_some() { shown + "…" } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_nouns_agree() {
        assert_eq!((count(0, "answer"), count(1, "answer")), ("0 answers".to_owned(), "1 answer".to_owned()));
        assert_eq!(excerpt(" a\u{1b}[2J\n "), "a\\u{1b}[2J");
        assert_eq!(excerpt(&"x".repeat(99)).chars().count(), 81);
    }
}
