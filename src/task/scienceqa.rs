//! ScienceQA: multiple-choice science questions, about half of them with an image.
//!
//! An entry of `llava_test_CQM-A.json`, a JSON array: `{"id": "5", "image": "5/image.png", "conversations": [{"from":
//! "human", "value": "<image>\nContext: …\nWhich of the following could Gordon's test show?\nA. …\nB. …"}, {"from":
//! "gpt", "value": "B"}]}`
//!
//! Score: the share of right letters, over all questions (`acc`) and over those with an image (`img_acc`). An answer
//! that is a letter is that letter, `X. …` is X, and else one single `The answer is X` followed by any character counts.
//!
//! Official scorer: LLaVA's `llava/eval/eval_science_qa.py` with ScienceQA's `problems.json` and `pid_splits.json`.
//! Where these are not in the folder, letters and numbers of choices are taken from the question file, and the report
//! says so. The scorer's own output file is read as answers, too.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value, json as json_value};

use super::{
    Answer, Card, MediaSource, Protocol, Report, Sample, Task,
    ids::{ById, key},
    questions::{file, folder, json, push},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::Marks,
    text::{IMAGE_PLACEHOLDER, strip},
};

/// The ScienceQA benchmark.
#[derive(Clone, Copy, Debug)]
pub struct ScienceQa;

const QUESTIONS: &str = "llava_test_CQM-A.json";
const LETTERS: [&str; 5] = ["A", "B", "C", "D", "E"];
/// The request at the end of multiple-choice questions.
pub(super) const CHOOSE: &str = "\nAnswer with the option's letter from the given choices directly.";

#[derive(Deserialize)]
struct Entry {
    id: Value,
    image: Option<String>,
    conversations: Vec<Turn>,
}

#[derive(Deserialize)]
struct Turn {
    value: String,
}

#[derive(Deserialize)]
struct Problem {
    choices: Vec<Value>,
    answer: usize,
}

#[derive(Deserialize)]
struct Splits {
    test: Vec<Value>,
}

/// The official scorer's output.
#[derive(Deserialize)]
struct Judged {
    correct: Vec<Analysis>,
    incorrect: Vec<Analysis>,
}

#[derive(Deserialize)]
struct Analysis {
    question_id: Value,
    question: String,
    pred: String,
}

/// The label of a question: the number of its right choice.
struct Label {
    id: Value,
    choices: usize,
    answer: usize,
}

impl Task for ScienceQa {
    fn card(&self) -> Card {
        Card {
            name: "scienceqa",
            about: "ScienceQA: multiple-choice science questions; accuracy, and that of questions with an image",
            data: "playground/data/eval/scienceqa",
            headline: "img_acc",
            max_new_tokens: 1024,
            hub: Some(DataSet { id: "lmms-lab-encoder/ScienceQA", files: &["ScienceQA-FULL/test"], unpack }),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let entries: Vec<Entry> = json(&file(data, QUESTIONS)?)?;
        let folder = folder(data, &["images/test", "images"], "the images")?;
        let samples = entries.into_iter().map(|entry| {
            let asked =
                entry.conversations.first().map(|turn| turn.value.replace(IMAGE_PLACEHOLDER, "")).unwrap_or_default();
            let asked = strip(&asked).to_owned();
            let placeholder = if entry.image.is_some() { format!("{IMAGE_PLACEHOLDER}\n") } else { String::new() };
            Sample {
                question_id: entry.id,
                media: entry.image.map(|image| MediaSource::File(folder.join(image))),
                text: format!("{placeholder}{asked}{CHOOSE}"),
                suffix: "",
                clip_text: asked,
                category: String::new(),
                more: Map::new(),
            }
        });
        Ok(samples.collect())
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        let named = match protocol {
            Protocol::Llava => letter(&answer.text),
            Protocol::LmmsEval => lmms_letter(&answer.text),
        };
        named.is_none().then_some("have no option letter where the rule looks")
    }

    fn answers(&self, path: &Path) -> Result<(Vec<Answer>, usize), Error> {
        let Ok(Judged { correct, incorrect }) = json(path) else { return Ok((Answer::read_all(path)?, 0)) };
        let answer = |analysis: Analysis| Answer {
            question_id: analysis.question_id,
            prompt: analysis.question,
            text: analysis.pred,
            answer_id: String::new(),
            model_id: String::new(),
            metadata: Map::new(),
            more: Map::new(),
        };
        Ok((correct.into_iter().chain(incorrect).map(answer).collect(), 0))
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let (labels, source) = labels(data)?;
        let by_id = ById::new(answers);
        let mut notes = by_id.notes(labels.iter().map(|label| &label.id), "count as wrong");
        notes.extend(source);
        let (mut all, mut images) = (Marks::new("acc"), Marks::new("img_acc"));
        for label in &labels {
            let answer = by_id.get(&label.id);
            let named = answer.and_then(|answer| match protocol {
                Protocol::Llava => letter(&answer.text),
                Protocol::LmmsEval => lmms_letter(&answer.text),
            });
            let right = named.filter(|named| *named < label.choices) == Some(label.answer);
            let mark = by_id.mark(&label.id, right, LETTERS.get(label.answer).copied().unwrap_or_default());
            if answer.is_some_and(|answer| answer.prompt.contains(IMAGE_PLACEHOLDER)) {
                images.mark(mark.clone());
            }
            all.mark(mark);
        }
        let n = all.answers.len();
        let mut metrics = vec![("acc".to_owned(), all.score().unwrap_or(0.0))];
        metrics.extend(images.score().map(|share| ("img_acc".to_owned(), share)));
        let marks = if images.answers.is_empty() { all } else { images };
        Ok(Report { benchmark: "scienceqa", protocol, n, metrics, marks, notes })
    }
}

/// Every question's label, and a note where they are not ScienceQA's own files.
fn labels(data: &Path) -> Result<(Vec<Label>, Option<String>), Error> {
    let (problems, splits) = (data.join("problems.json"), data.join("pid_splits.json"));
    if problems.is_file() && splits.is_file() {
        let problems: HashMap<String, Problem> = json(&problems)?;
        let splits: Splits = json(&splits)?;
        let label = |id: Value| {
            let problem = problems
                .get(&key(&id))
                .ok_or_else(|| Error::data(data, format!("problems.json lacks the test question {id}")))?;
            Ok(Label { id, choices: problem.choices.len(), answer: problem.answer })
        };
        return Ok((splits.test.into_iter().map(label).collect::<Result<_, Error>>()?, None));
    }
    let path = file(data, QUESTIONS)?;
    let entries: Vec<Entry> = json(&path)?;
    let label = |entry: Entry| match &entry.conversations[..] {
        [asked, answer, ..] => {
            let letter = LETTERS.iter().position(|letter| *letter == answer.value);
            let letter = letter.ok_or_else(|| Error::data(&path, format!("question {} has no letter", entry.id)))?;
            Ok(Label { choices: choices(&asked.value), answer: letter, id: entry.id })
        }
        _ => Err(Error::data(&path, format!("question {} has no answer", entry.id))),
    };
    let note =
        "labels and numbers of choices are from the question file: problems.json and pid_splits.json are not there";
    Ok((entries.into_iter().map(label).collect::<Result<_, Error>>()?, Some(note.to_owned())))
}

/// The number of choices that a question lists: A, B, … at the starts of its lines.
fn choices(question: &str) -> usize {
    let listed = |letter: &&&str| question.lines().any(|line| line.starts_with(&format!("{letter}. ")));
    LETTERS.iter().take_while(listed).count()
}

/// The choice that an answer names; `None` where it names none, or one beyond the letters.
fn letter(text: &str) -> Option<usize> {
    let index = |found: &str| LETTERS.iter().position(|letter| *letter == found);
    if let Some(exact) = index(text) {
        return Some(exact);
    }
    let start: Vec<char> = text.chars().take(3).collect();
    if let [first, '.', ' '] = start[..]
        && let Some(named) = index(&first.to_string())
    {
        return Some(named);
    }
    let named: Vec<char> = text
        .split("The answer is ")
        .skip(1)
        .filter_map(|rest| {
            let mut rest = rest.chars();
            rest.next().filter(char::is_ascii_uppercase).filter(|_| rest.next().is_some_and(|next| next != '\n'))
        })
        .collect();
    if let [only] = named[..] { index(&only.to_string()) } else { None }
}

/// The choice that an answer names by lmms-eval's rule: a letter alone in any case, or a capital before a period.
fn lmms_letter(text: &str) -> Option<usize> {
    let text = strip(text);
    let index = |found: &str| LETTERS.iter().position(|letter| *letter == found);
    index(&text.to_uppercase()).or_else(|| index(text.split_once('.')?.0))
}

/// Unpacks a row of the hub's data set: `question`, `choices`, `answer` (a number), `hint`, `image`, which may be
/// missing. The data set has no ids; the row's number is used as one.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = folder.count("question").to_string();
    let (choices, answer) = (row.texts("choices")?, row.integer("answer")?);
    let letter =
        usize::try_from(answer).ok().and_then(|i| LETTERS.get(i)).ok_or_else(|| row.error("no such choice"))?;
    let mut asked = match row.text("hint")?.as_str() {
        "" => String::new(),
        hint => format!("Context: {hint}\n"),
    };
    asked.push_str(&row.text("question")?);
    for (letter, choice) in LETTERS.iter().zip(&choices) {
        asked.push_str(&format!("\n{letter}. {choice}"));
    }
    let mut entry = json_value!({"id": id, "conversations": []});
    if let Some(image) = row.image("image")? {
        entry["image"] = folder.image("images/test", &format!("{id}/image"), image)?.into();
        asked.insert_str(0, &format!("{IMAGE_PLACEHOLDER}\n"));
    }
    entry["conversations"] = json_value!([{"from": "human", "value": asked}, {"from": "gpt", "value": letter}]);
    push(folder.json(QUESTIONS)?, entry);
    folder.json("problems.json")?[&id] = json_value!({"choices": choices, "answer": answer});
    push(&mut folder.json("pid_splits.json")?["test"], id.into());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn answers_are_read_as_the_official_script_reads_them() {
        let read: BTreeMap<&str, Option<usize>> = [
            "B",
            "B. cat",
            "The answer is B.",
            "The answer is C. The answer is D.",
            "The answer is D",
            "B.",
            "a",
            " A",
            "The answer is C! yes",
            "A. wrong but then The answer is B.",
            "1. The answer is B.",
            "F. The answer is A.",
            "",
        ]
        .map(|text| (text, letter(text)))
        .into();
        let right = [("B", 1), ("B. cat", 1), ("The answer is B.", 1), ("The answer is C! yes", 2)];
        for (text, index) in right {
            assert_eq!(read[text], Some(index), "{text:?}");
        }
        assert_eq!(read["A. wrong but then The answer is B."], Some(0));
        assert_eq!(
            (read["1. The answer is B."], read["F. The answer is A."]),
            (Some(1), Some(0)),
            "no letters of choices"
        );
        for text in ["The answer is C. The answer is D.", "The answer is D", "B.", "a", " A", ""] {
            assert_eq!(read[text], None, "{text:?}");
        }
    }
}
