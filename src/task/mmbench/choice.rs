//! Which option an answer names, by the rules of lmms-eval's `mmbench_*_static` tasks: a letter that stands out among
//! the words, else the only option whose text is in the answer, else the likeliest place for a letter.
//!
//! Followed: `can_infer_option`, `can_infer_text` and `extract_mcq_answer` of lmms-eval, quirks included: "A" is no
//! letter in an answer of more than three words, since it may be the article. Not followed: an option that is missing
//! counts as missing also where the data have the text "nan" for it; there, "banana" would name it.

const LETTERS: [char; 5] = ['A', 'B', 'C', 'D', 'E'];

/// Text that may stand before and after a letter, in the order in which it is looked for.
const AROUND: [(&str, &str); 12] = [
    ("", "."),
    ("", ","),
    ("", ":"),
    ("", ")"),
    ("", ")."),
    ("(", ")"),
    ("(", ")."),
    (":", ""),
    (":", ","),
    (":", "."),
    (":", ")"),
    (":", ")."),
];

/// Words after which a letter is the answer.
const PHRASES: [&str; 27] = [
    "the answer is",
    "answer is",
    "the correct answer is",
    "correct answer is",
    "the best answer is",
    "best answer is",
    "the correct option is",
    "correct option is",
    "the best option is",
    "best option is",
    "the choice is",
    "choice is",
    "the correct choice is",
    "correct choice is",
    "i choose",
    "i select",
    "i pick",
    "my answer is",
    "my choice is",
    "옵션",
    "정답은",
    "답은",
    "답:",
    "答案是",
    "答案为",
    "选",
    "答えは",
];

/// The letter that `answer` names, of a question with these options (A first); `None` if it names none.
pub(super) fn named(answer: &str, options: &[&str]) -> Option<char> {
    letter(answer).or_else(|| text(answer, options)).or_else(|| likeliest(answer, &LETTERS[..options.len().min(4)]))
}

/// The only letter among the words; `None` if there is none, or more than one.
fn letter(answer: &str) -> Option<char> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    let only = |before: &str, after: &str| {
        let there = |letter: &&char| words.contains(&format!("{before}{letter}{after}").as_str());
        let found: Vec<&char> = LETTERS.iter().filter(there).collect();
        if let [only] = found[..] { Some(*only) } else { None }
    };
    let article = words.contains(&"A") && words.len() > 3;
    let bare = only("", "").filter(|_| !article);
    bare.or_else(|| AROUND.iter().find_map(|(before, after)| only(before, after)))
}

/// The letter of the only option whose text is in the answer.
fn text(answer: &str, options: &[&str]) -> Option<char> {
    let answer = answer.to_lowercase();
    let found: Vec<char> = LETTERS
        .into_iter()
        .zip(options.iter().take(4))
        .filter(|(_, option)| answer.contains(&option.to_lowercase()))
        .map(|(letter, _)| letter)
        .collect();
    if let [only] = found[..] { Some(only) } else { None }
}

/// The letter in the likeliest place; of several such places the last one counts.
fn likeliest(answer: &str, letters: &[char]) -> Option<char> {
    let mut bare = answer.trim();
    for mark in [',', '.', '!', '?', ';', ':', '\'', '"'] {
        bare = bare.trim_matches(mark);
    }
    let padded = format!(" {bare} ");
    let stripped = padded.trim();
    let lower = padded.to_lowercase();
    let mut found: Vec<(u32, usize, char)> = Vec::new();
    for (weight, before, after) in [(6, "(", ")"), (5, "", "."), (4, "", ":"), (3, "", ")"), (2, "", " ")] {
        for &letter in letters {
            found.extend(padded.rfind(&format!("{before}{letter}{after}")).map(|at| (weight, at, letter)));
        }
    }
    for phrase in PHRASES {
        let after = lower.find(phrase).map(|at| at + phrase.len());
        let Some((from, rest)) = after.and_then(|at| Some((at, padded.get(at..)?))) else { continue };
        for &letter in letters {
            found.extend(rest.find(letter).map(|at| (7, from + at, letter)));
        }
    }
    let alone = |beside: Option<char>| !beside.is_some_and(char::is_alphabetic);
    for &letter in letters {
        if stripped.starts_with(letter) && alone(stripped.chars().nth(1)) {
            found.push((10, 0, letter));
        }
        if stripped.ends_with(letter) && alone(stripped.chars().rev().nth(1)) {
            found.push((9, padded.len(), letter));
        }
    }
    if found.is_empty() {
        found.extend(letters.iter().filter_map(|&letter| Some((0, padded.rfind(letter)?, letter))));
    }
    // Of equals the first counts, as in a stable sort.
    let best = found.iter().map(|(weight, at, _)| (*weight, *at)).max()?;
    found.iter().find(|(weight, at, _)| (*weight, *at) == best).map(|(.., letter)| *letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_found_where_lmms_eval_finds_them() {
        let options = ["a boat", "two cats", "the kitchen", "nothing"];
        for (answer, expected) in [
            ("B", Some('B')),
            ("B. two cats", Some('B')),
            ("(C)", Some('C')),
            ("The answer is D", Some('D')),
            // The article hides the letter, and the text decides.
            ("A boat is what I see", Some('A')),
            ("There are Two Cats", Some('B')),
            // Two letters: the phrase says most.
            ("Not A or B but the answer is C really", Some('C')),
            // A letter at the start says more than one at the end.
            ("B or C", Some('B')),
            ("I do not know", None),
            ("", None),
        ] {
            assert_eq!(named(answer, &options), expected, "{answer:?}");
        }
    }
}
