//! EvalAI's answer normalisation and the VQA accuracy over ten human answers, with their quirks.
//!
//! Official code: `EvalAIAnswerProcessor` and `TextVQAAccuracyEvaluator` of LLaVA's `llava/eval/m4c_evaluator.py`. The
//! quirks that change answers: commas and question marks are removed before other punctuation; punctuation is deleted
//! or replaced by a space, depending on what stands around it *before* any of it was replaced; only the first 32
//! periods are removed (a flag was passed as a count), and a period is removed whenever no digit follows.

use crate::text::{is_space, strip};

const PUNCTUATION: [char; 21] =
    [';', '/', '[', ']', '"', '{', '}', '(', ')', '=', '+', '\\', '_', '-', '>', '<', '@', '`', ',', '?', '!'];
const NUMBERS: [(&str, &str); 12] = [
    ("none", "0"),
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];
/// The largest number of periods that are removed.
const PERIODS: usize = 32;

/// Contractions that are restored where their apostrophes are missing.
const CONTRACTIONS: &str = "'twas ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd \
    he's how'd how'll how's isn't it'd it'll ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't \
    shan't should've shouldn't somebody'll somebody's someone'd someone'll someone's something'd something'll that's \
    there'd there're there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's \
    where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll \
    you're you've";

/// Contractions with two apostrophes, of which either may be missing, and one that loses its apostrophe. (Those with
/// capitals in the official table never match: words are in lower case by then.)
const TWICE: &str = "couldn'tve>couldn't've couldnt've>couldn't've hadnt've>hadn't've hadn'tve>hadn't've hed've>he'd've \
    he'dve>he'd've itd've>it'd've it'dve>it'd've mightnt've>mightn't've mightn'tve>mightn't've ow's'at>'ow's'at \
    'ows'at>'ow's'at 'ow'sat>'ow's'at shed've>she'd've she'dve>she'd've shouldnt've>shouldn't've \
    shouldn'tve>shouldn't've somebody'd>somebodyd somebodyd've>somebody'd've somebody'dve>somebody'd've \
    someoned've>someone'd've someone'dve>someone'd've somethingd've>something'd've something'dve>something'd've \
    thered've>there'd've there'dve>there'd've theyd've>they'd've they'dve>they'd've wed've>we'd've we'dve>we'd've \
    whod've>who'd've who'dve>who'd've wouldnt've>wouldn't've wouldn'tve>wouldn't've yall'll>y'all'll y'allll>y'all'll \
    yall'd've>y'all'd've y'alld've>y'all'd've y'all'dve>y'all'd've youd've>you'd've you'dve>you'd've";

/// The answer that most people gave; of several the first.
pub(super) fn most_said(people: &[String]) -> String {
    let count = |said: &&String| people.iter().filter(|other| other == said).count();
    // The last of the largest is taken, so that the order is turned round.
    people.iter().rev().max_by_key(count).cloned().unwrap_or_default()
}

/// An answer as EvalAI compares it.
pub fn normalise(answer: &str) -> String {
    let text = answer.to_lowercase().replace([',', '?'], "").replace("'s", " 's");
    let text = strip(&text).replace(['\n', '\t'], " ");
    digits_and_articles(&punctuation(strip(&text)))
}

fn punctuation(text: &str) -> String {
    let mut out = text.to_owned();
    let grouped = has_grouped_digits(text);
    for mark in PUNCTUATION {
        let apart = grouped || text.contains(&format!("{mark} ")) || text.contains(&format!(" {mark}"));
        out = out.replace(mark, if apart { "" } else { " " });
    }
    let mut removed = 0;
    let characters: Vec<char> = out.chars().collect();
    let mut keeps = |(i, &c): (usize, &char)| {
        let goes = c == '.' && removed < PERIODS && !characters.get(i + 1).is_some_and(|next| is_digit(*next));
        removed += usize::from(goes);
        !goes
    };
    characters.iter().enumerate().filter(|&pair| keeps(pair)).map(|(_, &c)| c).collect()
}

/// Whether a comma stands between digits, as in 1,000: then no punctuation mark becomes a space. This can be so only
/// where [`normalise`] has not removed the commas before.
fn has_grouped_digits(text: &str) -> bool {
    let mut parts = text.split(',').filter(|part| !part.is_empty()).peekable();
    while let Some(part) = parts.next() {
        let next = parts.peek().and_then(|next| next.chars().next());
        if part.chars().next_back().is_some_and(is_digit) && next.is_some_and(is_digit) {
            return true;
        }
    }
    false
}

/// Python's `\d`, as far as answers go.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn digits_and_articles(text: &str) -> String {
    let lower = text.to_lowercase();
    let words = lower.split(is_space).filter(|word| !word.is_empty());
    let words = words
        .map(|word| NUMBERS.iter().find(|(number, _)| *number == word).map_or(word, |(_, digit)| digit))
        .filter(|word| !["a", "an", "the"].contains(word))
        .map(contraction);
    words.collect::<Vec<_>>().join(" ")
}

fn contraction(word: &str) -> String {
    let twice = TWICE.split(' ').filter_map(|pair| pair.split_once('>')).find(|(from, _)| *from == word);
    if let Some((_, to)) = twice {
        return to.to_owned();
    }
    let once = CONTRACTIONS.split(' ').find(|to| to.replace('\'', "") == word);
    once.unwrap_or(word).to_owned()
}

/// The VQA accuracy of `answer` against ten people's answers, from 0 to 1: of nine people, three who say the same give
/// 1, fewer a share of it; the mean over the person who is left out.
pub(super) fn accuracy(answer: &str, people: &[String]) -> f64 {
    agreement(answer, people, normalise)
}

/// The VQA accuracy by lmms-eval's rule for VQAv2, which leaves out the first steps of [`normalise`].
pub(super) fn parts_accuracy(answer: &str, people: &[String]) -> f64 {
    agreement(answer, people, |text| digits_and_articles(&punctuation(strip(&text.replace(['\n', '\t'], " ")))))
}

fn agreement(answer: &str, people: &[String], normalise: fn(&str) -> String) -> f64 {
    let answer = normalise(answer);
    let same: Vec<bool> = people.iter().map(|said| normalise(said) == answer).collect();
    let all = same.iter().filter(|same| **same).count();
    let without = same.iter().map(|same| ((all - usize::from(*same)) as f64 / 3.0).min(1.0));
    without.sum::<f64>() / people.len().max(1) as f64
}
