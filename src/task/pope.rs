//! POPE: is an object in the image? Random, popular and adversarial objects.
//!
//! A line of `llava_pope_test.jsonl`: `{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a
//! snowboard in the image?\nAnswer the question using a single word or phrase.", "category": "adversarial"}`
//!
//! The label of this question, in `coco/coco_pope_adversarial.json`, a JSON object a line, in the order of the
//! questions: `{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the
//! image?", "label": "yes"}`
//!
//! Score: F1 of "yes" for each category, and their mean. An answer is cut at its first period, commas are deleted, and
//! it is "no" if one of the words between single spaces is `No`, `not` or `no`, else "yes".
//!
//! Official scorer: LLaVA's `llava/eval/eval_pope.py`. It matches labels by order alone and never checks that they
//! belong to the questions: POPE's labels exist in two versions, with 2,910 and with 3,000 random questions, and the
//! wrong one scores nonsense. Here every label must be that of its question. Where a figure divides by zero it is 0,
//! and a note says so (there: a crash). lmms-eval's rule is [`Exact`].

use std::path::Path;

use serde::Deserialize;
use serde_json::json;

use super::{
    Answer, Card, Protocol, Report, Sample, Task,
    ids::ById,
    questions::{Question, file, lines, one_of, samples_of},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    statistics::{Marks, Unit},
    text::{SINGLE_WORD, strip},
};

/// The POPE benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Pope;

const QUESTIONS: [&str; 2] = ["llava_pope_test.jsonl", "questions.jsonl"];
const CATEGORIES: [&str; 3] = ["random", "popular", "adversarial"];

#[derive(Deserialize)]
struct Label {
    image: String,
    text: String,
    label: String,
}

impl Task for Pope {
    fn card(&self) -> Card {
        Card {
            name: "pope",
            about: "POPE: yes / no questions about objects that may not be there; mean F1 of three categories",
            data: "playground/data/eval/pope",
            headline: "f1_mean",
            headline_of_lmms_eval: Some("f1"),
            max_new_tokens: 128,
            hub: Some(DataSet { id: "lmms-lab-encoder/POPE", files: &["data/test"], unpack }),
            ..Card::default()
        }
    }

    fn lacks(&self, answer: &Answer, protocol: Protocol) -> Option<&'static str> {
        let text = strip(&answer.text);
        let is_plain = ["yes", "no"].contains(&text.to_lowercase().as_str());
        let read = match protocol {
            Protocol::LmmsEval => is_plain,
            Protocol::Llava => {
                let first = text.split('.').next().unwrap_or_default();
                let yes = first.split(|c: char| !c.is_alphanumeric()).any(|word| word.eq_ignore_ascii_case("yes"));
                yes || !says_yes(text)
            }
        };
        (!read).then_some("say neither yes nor no as the rule reads them")
    }

    fn unread_as(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Llava => "yes",
            Protocol::LmmsEval => "wrong",
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        samples_of(data, &one_of(data, &QUESTIONS)?, &["val2014"])
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let questions: Vec<Question> = lines(&one_of(data, &QUESTIONS)?, "question")?;
        let by_id = ById::new(answers);
        let strays = by_id.strays(questions.iter().map(|question| &question.question_id));
        if strays > 0 {
            return Err(Error::data(data, format!("{strays} answer(s) have the ids of no question here")));
        }
        let mut metrics = Vec::new();
        let mut notes = by_id.notes(questions.iter().map(|question| &question.question_id), "are left out");
        let mut f1s = Vec::new();
        let mut exact = Exact::default();
        let (mut marks, mut strict) = (Marks::new("f1_mean"), Marks::new("f1"));
        for (stratum, category) in CATEGORIES.into_iter().enumerate() {
            let own: Vec<&Question> = questions.iter().filter(|question| question.category == category).collect();
            let labels = labels(data, category, &own)?;
            let mut counts = Counts::default();
            for (question, label) in own.iter().zip(&labels) {
                if let Some(answer) = by_id.get(&question.question_id) {
                    let is = label.label != "no";
                    let said = says_yes(&answer.text);
                    counts.add(said, is);
                    exact.add(&answer.text, is);
                    add_mark(&mut marks, answer, stratum, Some(said), is);
                    add_mark(&mut strict, answer, 0, exact_answer(&answer.text), is);
                }
            }
            if counts.all() == 0 {
                continue;
            }
            if counts.right_yes == 0 {
                notes.push(format!(
                    "{category}: no true positive, so that F1, precision or recall divide by zero; they are 0"
                ));
            }
            f1s.push(counts.f1());
            metrics.extend(counts.metrics(category));
        }
        if f1s.is_empty() {
            return Err(Error::data(data, "no answer belongs to a category with labels"));
        }
        if protocol == Protocol::LmmsEval {
            let notes = by_id.notes(questions.iter().map(|question| &question.question_id), "are left out");
            let (metrics, n) = (exact.metrics(), answers.len());
            return Ok(Report { benchmark: "pope", protocol, n, metrics, marks: strict, notes });
        }
        if f1s.len() < CATEGORIES.len() {
            notes.push(format!("f1_mean is over {} of {} categories", f1s.len(), CATEGORIES.len()));
        }
        metrics.push(("f1_mean".to_owned(), f1s.iter().sum::<f64>() / f1s.len() as f64));
        Ok(Report { benchmark: "pope", protocol, n: answers.len(), metrics, marks, notes })
    }
}

/// Adds a question to the marks of an F1, 2 · true positives / (said yes + is yes). Questions that are neither said nor labelled yes count nothing
/// there. An answer that is `None` says neither, and lowers no recall, as in lmms-eval.
fn add_mark(marks: &mut Marks, answer: &Answer, stratum: usize, said: Option<bool>, is: bool) {
    let number = |yes: bool| f64::from(u8::from(yes));
    let (part, whole) = match said {
        Some(said) => (2.0 * number(said && is), number(said) + number(is)),
        None => (0.0, 0.0),
    };
    let mark = answer.mark(said == Some(is), if is { "yes" } else { "no" });
    marks.units.push(Unit { key: mark.id.clone(), stratum, part, whole });
    marks.answers.push(mark);
}

/// The labels of a category, each of which must be that of the question at its place.
fn labels(data: &Path, category: &str, questions: &[&Question]) -> Result<Vec<Label>, Error> {
    let path = file(data, &format!("coco/coco_pope_{category}.json"))?;
    let labels: Vec<Label> = lines(&path, "label")?;
    let belongs = |(question, label): (&&Question, &Label)| {
        question.image == label.image && question.text.strip_suffix(SINGLE_WORD).unwrap_or(&question.text) == label.text
    };
    let fits = questions.iter().zip(&labels).take_while(|pair| belongs(*pair)).count();
    if fits == questions.len() && fits == labels.len() {
        return Ok(labels);
    }
    Err(Error::data(
        &path,
        format!(
            "these labels are not those of the questions: {} labels for {} {category} questions, of which the first {fits} \
             belong together; POPE's labels were changed later, take those of its commit e3e3926",
            labels.len(),
            questions.len()
        ),
    ))
}

fn says_yes(text: &str) -> bool {
    let sentence = text.split('.').next().unwrap_or_default().replace(',', "");
    !sentence.split(' ').any(|word| ["No", "not", "no"].contains(&word))
}

#[derive(Default)]
struct Counts {
    right_yes: usize,
    wrong_yes: usize,
    right_no: usize,
    wrong_no: usize,
}

impl Counts {
    fn add(&mut self, said: bool, is: bool) {
        *match (said, is) {
            (true, true) => &mut self.right_yes,
            (true, false) => &mut self.wrong_yes,
            (false, false) => &mut self.right_no,
            (false, true) => &mut self.wrong_no,
        } += 1;
    }

    fn all(&self) -> usize {
        self.right_yes + self.wrong_yes + self.right_no + self.wrong_no
    }

    fn precision(&self) -> f64 {
        share(self.right_yes, self.right_yes + self.wrong_yes)
    }

    fn recall(&self) -> f64 {
        share(self.right_yes, self.right_yes + self.wrong_no)
    }

    fn f1(&self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall > 0.0 { 2.0 * precision * recall / (precision + recall) } else { 0.0 }
    }

    fn metrics(&self, category: &str) -> [(String, f64); 5] {
        [
            ("f1", self.f1()),
            ("accuracy", share(self.right_yes + self.right_no, self.all())),
            ("precision", self.precision()),
            ("recall", self.recall()),
            ("yes_ratio", share(self.right_yes + self.wrong_yes, self.all())),
        ]
        .map(|(name, value)| (format!("{name}_{category}"), value))
    }
}

/// An answer by lmms-eval's rule: exactly yes or no, or neither.
fn exact_answer(text: &str) -> Option<bool> {
    match strip(text).to_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// lmms-eval's rule: an answer is exactly yes or no, or wrong; one F1 over all categories. A positive that is answered
/// with something else does not lower recall there, and so not here.
#[derive(Default)]
struct Exact {
    counts: Counts,
    right: usize,
    all: usize,
}

impl Exact {
    fn add(&mut self, text: &str, is: bool) {
        let said = exact_answer(text);
        self.all += 1;
        self.right += usize::from(said == Some(is));
        if let Some(said) = said {
            self.counts.add(said, is);
        }
    }

    fn metrics(&self) -> Vec<(String, f64)> {
        let Self { counts, right, all } = self;
        let metrics = [
            ("f1", counts.f1()),
            ("accuracy", share(*right, *all)),
            ("precision", counts.precision()),
            ("recall", counts.recall()),
        ];
        metrics.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }
}

fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// Unpacks a row of the hub's data set: `image_source` `COCO_val2014_000000310196`, `image`, `question`, `answer`,
/// `category`. Ids are numbered as in LLaVA's file, which has 2,910 random questions; later releases and this one have
/// 3,000.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let [question, answer, category] = ["question", "answer", "category"].map(|name| row.text(name));
    let (question, category) = (question?, category?);
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let image = folder.image("val2014", &row.name("image_source")?, image)?;
    let first = match category.as_str() {
        "adversarial" => 0,
        "random" => 10_000_000,
        "popular" => 20_000_000,
        other => return Err(row.error(&format!("unknown category `{other}`"))),
    };
    let number = folder.count(&category) + 1;
    let text = format!("{question}{SINGLE_WORD}");
    let asked = json!({"question_id": first + number, "image": image, "text": text, "category": category});
    folder.line("llava_pope_test.jsonl", &asked.to_string())?;
    let label = json!({"question_id": number, "image": image, "text": question, "label": answer?});
    folder.line(&format!("coco/coco_pope_{category}.json"), &label.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The official script's reading of answers was recorded.
    #[test]
    fn answers_are_read_as_the_official_script_reads_them() {
        for (text, yes) in [
            ("Yes", true),
            ("No, there is not.", false),
            ("There is no dog in the image.", false),
            ("Not sure", true),
            ("The answer is no", false),
            ("No,there is none", true),
            ("Yes. No.", true),
            ("NO", true),
            ("no\nyes", true),
            (".no", true),
            ("", true),
        ] {
            assert_eq!(says_yes(text), yes, "{text:?}");
        }
    }
}
