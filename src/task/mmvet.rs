//! MM-Vet: open questions that need several abilities at once.
//!
//! A line of `llava-mm-vet.jsonl`: `{"image": "v1_0.png", "text": "What is x in the equation?", "category": "conv",
//! "question_id": 0}`
//!
//! Judged by GPT-4: on MM-Vet's own server or notebook, which takes `{"v1_0": "…", …}` (official converter: LLaVA's
//! `scripts/convert_mmvet_for_eval.py`), or here. A label, in `mm-vet.json`: `"v1_0": {"imagename": "v1_0.png",
//! "question": "What is x in the equation?", "answer": "-1<AND>-5", "capability": ["ocr", "math"], …}`
//!
//! Score: the judge's, from 0 to 1, averaged over all questions and over those of each ability, as
//! `mm-vet_evaluator.py` does. A question with five replies without a number counts as 0, as there, and is counted in a
//! note. If none of a judge's replies can be read, that is an error here.

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::{
    Answer, Card, Judged, MustAnswer, Protocol, Report, Sample, Task,
    ids::ById,
    python_json,
    questions::{file, json as read_json, question_ids, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    judge::Request,
    statistics::Marks,
    text::strip,
    words::count,
};

/// The MM-Vet benchmark.
#[derive(Clone, Copy, Debug)]
pub struct MmVet;

const QUESTIONS: &str = "llava-mm-vet.jsonl";
const LABELS: &str = "mm-vet.json";
/// The abilities in the order of papers: recognition, reading, knowledge, writing, space, arithmetic.
const ABILITIES: [&str; 6] = ["rec", "ocr", "know", "gen", "spat", "math"];

/// The instruction to the judge, in our words, with the meaning and the form of MM-Vet's table.
const INSTRUCTION: &str = "\
You grade answers to questions about pictures that you cannot see. For each row, compare the prediction with the ground truth and \
give a grade between 0.0 (nothing is right) and 1.0 (everything is right), in steps of 0.1. Where the ground truth joins parts with \
<AND>, a full grade needs all of them and each is worth its share; where it joins them with <OR>, one of them is enough. The length \
and the style of a prediction do not matter. Reply with the missing grade of the last row, as a number and nothing else.

Question | Ground truth | Prediction | Grade
--- | --- | --- | ---
How many birds sit on the wire, and what color are they? | three <AND> black | There are two black birds. | 0.5
How many birds sit on the wire, and what color are they? | three <AND> black | I see 3 birds, all of them black. | 1.0
What does the sign say? | no entry <OR> do not enter | It says \"Exit\". | 0.0
What does the sign say? | no entry <OR> do not enter | The sign reads \"Do not enter\". | 1.0
Why does the man laugh? | He laughs because the dog has put on his hat and looks proud of it. | There is a dog with a hat beside him. | 0.4
";

#[derive(Deserialize)]
struct Label {
    question: String,
    answer: String,
    capability: Vec<String>,
}

/// The upload: a map in the order of the answers, each question once.
struct Rows<'a>(ById<'a>);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.in_order().map(|(id, answer)| (format!("v1_{id}"), &answer.text)))
    }
}

impl Task for MmVet {
    fn card(&self) -> Card {
        Card {
            name: "mm-vet",
            about: "MM-Vet: open questions that need several abilities; graded by a judge",
            data: "playground/data/eval/mm-vet",
            headline: "total",
            max_new_tokens: 1024,
            hub: Some(DataSet { id: "lmms-lab-encoder/MMVet", files: &["data/test"], unpack }),
            upload: Some("mm-vet.json"),
            ..Card::default()
        }
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let mut samples = samples(data, QUESTIONS, &["images"])?;
        for sample in &mut samples {
            sample.clip_text.clone_from(&sample.text);
        }
        Ok(samples)
    }

    fn uploaded(&self, data: &Path) -> Result<MustAnswer, Error> {
        question_ids(data, QUESTIONS)
    }

    fn upload(&self, _data: &Path, answers: &[Answer]) -> Result<Vec<u8>, Error> {
        Ok(python_json::indented(&Rows(ById::new(answers))))
    }

    fn judged(&self) -> Option<&dyn Judged> {
        Some(self)
    }

    fn score(&self, _data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let mut notes = ById::new(answers).repeated();
        notes.push("no score without a judge: --judge-url, or MM-Vet's server".to_owned());
        Ok(Report {
            benchmark: "mm-vet",
            protocol,
            n: answers.len(),
            metrics: Vec::new(),
            marks: Marks::default(),
            notes,
        })
    }
}

impl Judged for MmVet {
    fn judge(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Llava => "gpt-4-0613",
            Protocol::LmmsEval => "gpt-4o-2024-11-20",
        }
    }

    fn requests(&self, data: &Path, answers: &[Answer], instruction: Option<&Value>) -> Result<Vec<Request>, Error> {
        let labels = labels(data)?;
        let instruction = match instruction {
            None => INSTRUCTION,
            Some(Value::String(text)) => text,
            Some(_) => {
                return Err(Error::data(data, "MM-Vet's instruction to the judge is one text, not a JSON object"));
            }
        };
        let request = |(id, answer): (&str, &Answer)| {
            let label = label(&labels, id, data)?;
            let truth = label.answer.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ");
            let text = format!("{instruction}\n{} | {truth} | {} | ", label.question, answer.text);
            Ok(Request { text, max_tokens: 8, temperature: 0.0 })
        };
        ById::new(answers).in_order().map(request).collect()
    }

    fn verdict(&self, reply: &str) -> Option<Vec<f64>> {
        let official: Option<f64> = strip(reply).split(' ').next().and_then(|word| word.parse().ok());
        // A number inside of other text counts only if no other number could be meant.
        let grade = official.or_else(|| only_number(reply))?;
        (0.0..=1.0).contains(&grade).then(|| vec![grade])
    }

    fn report(
        &self,
        data: &Path,
        answers: &[Answer],
        verdicts: &[Option<Vec<f64>>],
        protocol: Protocol,
    ) -> Result<Report, Error> {
        let labels = labels(data)?;
        let by_id = ById::new(answers);
        let (mut graded, mut marks) = (Vec::new(), Marks::new("total"));
        for ((id, answer), verdict) in by_id.in_order().zip(verdicts) {
            let grade = verdict.as_ref().and_then(|verdict| verdict.first().copied());
            let (label, grade) = (label(&labels, id, data)?, grade.unwrap_or(0.0));
            marks.mark(answer.worth(grade, &label.answer));
            graded.push((label, grade));
        }
        let mean = |of: &dyn Fn(&Label) -> bool| {
            let grades: Vec<f64> = graded.iter().filter(|(label, _)| of(label)).map(|(_, grade)| *grade).collect();
            (!grades.is_empty()).then(|| grades.iter().sum::<f64>() / grades.len() as f64)
        };
        let mut metrics = Vec::new();
        for ability in ABILITIES {
            let mean = mean(&|label| label.capability.iter().any(|other| other == ability));
            metrics.extend(mean.map(|mean| (ability.to_owned(), mean)));
        }
        metrics.extend(mean(&|_| true).map(|mean| ("total".to_owned(), mean)));
        let mut notes = by_id.repeated();
        if graded.len() < labels.len() {
            notes.push(format!(
                "{} of {} questions have no answer and are left out",
                labels.len() - graded.len(),
                labels.len()
            ));
        }
        let without = verdicts.iter().filter(|verdict| verdict.is_none()).count();
        if without > 0 {
            let counts = if without == 1 { "counts" } else { "count" };
            notes.push(format!("{} got no grade from the judge and {counts} as 0", count(without, "answer")));
        }
        Ok(Report { benchmark: "mm-vet", protocol, n: graded.len(), metrics, marks, notes })
    }
}

/// The number in a text that has one, and no other: `I would give **0.7**.`, `0.7/1.0` with the highest grade behind it.
fn only_number(text: &str) -> Option<f64> {
    let text = text.replace("/1.0", " ").replace("/ 1.0", " ").replace("out of 1.0", " ");
    let words = text.split(|c: char| !(c.is_ascii_digit() || c == '.')).map(|word| word.trim_matches('.'));
    let numbers: Vec<f64> = words.filter_map(|word| word.parse().ok()).collect();
    if let [only] = numbers[..] { Some(only) } else { None }
}

fn labels(data: &Path) -> Result<BTreeMap<String, Label>, Error> {
    read_json(&file(data, LABELS)?)
}

/// The label of a question by its number.
fn label<'a>(labels: &'a BTreeMap<String, Label>, id: &str, data: &Path) -> Result<&'a Label, Error> {
    let found = labels.get(&format!("v1_{id}"));
    found.ok_or_else(|| Error::data(&data.join(LABELS), format!("no label for the question {id} of an answer")))
}

/// Unpacks a row of the hub's data set: `question_id` `v1_0`, `image`, `question`, `answer`, `capability` `ocr,math`.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let id = row.name("question_id")?;
    let number: u64 = id.trim_start_matches("v1_").parse().map_err(|_| row.error("an id like v1_0 was expected"))?;
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let image = folder.image("images", &id, image)?;
    let (question, answer, abilities) = (row.text("question")?, row.text("answer")?, row.text("capability")?);
    let abilities: Vec<&str> = abilities.split(',').map(str::trim).collect();
    folder.json(LABELS)?[&id] =
        json!({"imagename": image, "question": question, "answer": answer, "capability": abilities});
    let line = json!({"question_id": number, "image": image, "text": question, "category": "conv"});
    folder.line(QUESTIONS, &line.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grades_are_read_where_no_other_number_is_meant() {
        for (reply, expected) in [
            ("0.7", Some(0.7)),
            ("1.0 since all is right", Some(1.0)),
            ("For the last row I would give **0.7**.", Some(0.7)),
            ("Grade: 0.5/1.0", Some(0.5)),
            ("Between 0.5 and 0.7", None),
            ("I cannot see the image", None),
            ("7", None),
        ] {
            assert_eq!(MmVet.verdict(reply), expected.map(|grade| vec![grade]), "{reply}");
        }
    }
}
