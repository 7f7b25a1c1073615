//! LLaVA-Bench (in the Wild): 60 open questions about 24 images.
//!
//! A line of `questions.jsonl`: `{"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What is the name
//! of this famous sight in the photo?"}`; of `context.jsonl`: `{"id": "…", "image": "001.jpg", "caption": "An aerial
//! view of …"}`; of `answers_gpt4.jsonl`: `{"question_id": 0, "text": "…", …}`.
//!
//! Judge: GPT-4. It reads a description of the image, GPT-4's own answer and the model's, and gives each answer 1 to 10.
//!
//! Score: the model's points as a share of GPT-4's, over all questions and over those of each category.
//!
//! Official: LLaVA's `llava/eval/eval_gpt_review_bench.py` and `summarize_gpt_review.py`. They read the answers file of
//! a run as it is, and count a reply without points as −1 for both; here the judge is asked again, and then the reply
//! is left out. They also send a system message. lmms-eval finds points inside of other text, as in "8/10", where the
//! judge is asked again here.

use std::{collections::HashMap, path::Path};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Answer, Card, Judged, Protocol, Report, Sample, Task,
    ids::{ById, key},
    questions::{Question, file, lines, samples},
};
use crate::{
    Error,
    dataset::{DataSet, Folder, Record},
    judge::Request,
    statistics::{Marks, Unit},
};

/// The LLaVA-Bench benchmark.
#[derive(Clone, Copy, Debug)]
pub struct LlavaBench;

const QUESTIONS: &str = "questions.jsonl";
const CONTEXT: &str = "context.jsonl";
const REFERENCE: &str = "answers_gpt4.jsonl";
const CATEGORIES: [&str; 3] = ["conv", "detail", "complex"];

/// The instruction to the judge, in our words, with the meaning of LLaVA's rules.
const INSTRUCTION: &str = "\
Above are a question that somebody asked about a picture, a description of the picture in words, and the answers of two assistants. \
Judge how helpful, relevant, correct and detailed each answer is, with the description as the truth about the picture, and give each \
assistant a score from 1 to 10, where more is better. The order of the two must not matter. The first line of your reply must hold the \
two scores alone, that of Assistant 1 first, with a space between them. Explain them from the second line on.";

#[derive(Deserialize)]
struct Context {
    image: String,
    caption: Caption,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Caption {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Reference {
    question_id: Value,
    text: String,
}

impl Task for LlavaBench {
    fn card(&self) -> Card {
        Card {
            name: "llava-bench",
            about: "LLaVA-Bench (in the Wild): open questions; graded by a judge",
            data: "playground/data/eval/llava-bench-in-the-wild",
            headline: "all",
            max_new_tokens: 1024,
            hub: Some(DataSet { id: "lmms-lab-encoder/llava-bench-in-the-wild", files: &["data/train"], unpack }),
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

    fn judged(&self) -> Option<&dyn Judged> {
        Some(self)
    }

    fn score(&self, _data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        let mut notes = ById::new(answers).repeated();
        notes.push("no score without a judge: --judge-url, or LLaVA's eval_gpt_review_bench.py".to_owned());
        Ok(Report {
            benchmark: "llava-bench",
            protocol,
            n: answers.len(),
            metrics: Vec::new(),
            marks: Marks::default(),
            notes,
        })
    }
}

impl Judged for LlavaBench {
    fn judge(&self, protocol: Protocol) -> &'static str {
        match protocol {
            Protocol::Llava => "gpt-4-0314",
            Protocol::LmmsEval => "gpt-4o-2024-11-20",
        }
    }

    /// `instruction` may be LLaVA's `rule.json`, which has one for each category.
    fn requests(&self, data: &Path, answers: &[Answer], instruction: Option<&Value>) -> Result<Vec<Request>, Error> {
        let questions = questions(data)?;
        let contexts: Vec<Context> = lines(&file(data, CONTEXT)?, "description")?;
        let contexts: HashMap<String, Caption> = contexts.into_iter().map(|line| (line.image, line.caption)).collect();
        let references: Vec<Reference> = lines(&file(data, REFERENCE)?, "answer")?;
        let references: HashMap<String, String> =
            references.into_iter().map(|line| (key(&line.question_id), line.text)).collect();
        let request = |(id, answer): (&str, &Answer)| {
            let question = question(&questions, id, data)?;
            let missing =
                |what: &str, file: &str| Error::data(&data.join(file), format!("no {what} for question {id}"));
            let context = match contexts.get(&question.image).ok_or_else(|| missing("description", CONTEXT))? {
                Caption::One(text) => text.clone(),
                Caption::Several(texts) => texts.join("\n"),
            };
            let reference = references.get(id).ok_or_else(|| missing("answer", REFERENCE))?;
            let rule = rule(instruction, &question.category, data)?;
            let text = format!(
                "[Context]\n{context}\n\n[Question]\n{}\n\n[Assistant 1]\n{reference}\n\n[End of Assistant 1]\n\n[Assistant \
                 2]\n{}\n\n[End of Assistant 2]\n\n[System]\n{rule}\n\n",
                question.text, answer.text
            );
            Ok(Request { text, max_tokens: 1024, temperature: 0.2 })
        };
        ById::new(answers).in_order().map(request).collect()
    }

    /// The two numbers of the first line, or of the only line that has two alone, with a space or a comma between them.
    fn verdict(&self, reply: &str) -> Option<Vec<f64>> {
        let pair = |line: &str| {
            let line = line.trim_matches(|c: char| c.is_whitespace() || "*`.".contains(c)).replace(',', " ");
            let numbers: Option<Vec<f64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
            // LLaVA's rules ask for 1 to 10; judges give 0, too.
            let is_score = |number: &f64| *number == 0.0 || (0.1..=10.0).contains(number);
            numbers.filter(|numbers| numbers.len() == 2 && numbers.iter().all(is_score))
        };
        // A line below other text counts only if no other line has two numbers alone.
        let pairs: Vec<Vec<f64>> = reply.lines().filter_map(pair).collect();
        let first = reply.trim().lines().next().and_then(pair);
        first.or_else(|| if let [only] = &pairs[..] { Some(only.clone()) } else { None })
    }

    fn report(
        &self,
        data: &Path,
        answers: &[Answer],
        verdicts: &[Option<Vec<f64>>],
        protocol: Protocol,
    ) -> Result<Report, Error> {
        let questions = questions(data)?;
        let by_id = ById::new(answers);
        let (mut points, mut marks) = (Vec::new(), Marks::new("all"));
        for ((id, answer), verdict) in by_id.in_order().zip(verdicts) {
            let question = question(&questions, id, data)?;
            if let Some([reference, own]) = verdict.as_deref() {
                points.push((question.category.as_str(), *reference, *own));
                // The judge gives up to 10 points.
                marks.answers.push(answer.worth(own / 10.0, ""));
                marks.units.push(Unit { key: id.to_owned(), stratum: 0, part: *own, whole: *reference });
            }
        }
        let share = |category: Option<&str>| {
            let of = points.iter().filter(|(own, ..)| category.is_none_or(|category| category == *own));
            let (reference, own) = of.fold((0.0, 0.0), |sum, (_, reference, own)| (sum.0 + reference, sum.1 + own));
            (reference > 0.0).then(|| own / reference)
        };
        let all = CATEGORIES.into_iter().map(Some).chain([None]);
        let metrics =
            all.filter_map(|category| Some((category.unwrap_or("all").to_owned(), share(category)?))).collect();
        let mut notes = by_id.notes(questions.iter().map(|question| &question.question_id), "are left out");
        let without = verdicts.len() - points.len();
        if without > 0 {
            notes.push(format!("{without} answer(s) got no score from the judge and are left out"));
        }
        Ok(Report { benchmark: "llava-bench", protocol, n: points.len(), metrics, marks, notes })
    }
}

/// The instruction for a category: ours, the given one, or the category's own in LLaVA's `rule.json`.
fn rule<'a>(given: Option<&'a Value>, category: &str, data: &Path) -> Result<&'a str, Error> {
    match given {
        None => Ok(INSTRUCTION),
        Some(Value::String(text)) => Ok(text),
        Some(rules) => rules[format!("llava_bench_{category}")]["prompt"].as_str().ok_or_else(|| {
            Error::data(data, format!("the judge's rules have no `prompt` of `llava_bench_{category}`"))
        }),
    }
}

fn questions(data: &Path) -> Result<Vec<Question>, Error> {
    lines(&file(data, QUESTIONS)?, "question")
}

fn question<'a>(questions: &'a [Question], id: &str, data: &Path) -> Result<&'a Question, Error> {
    let found = questions.iter().find(|question| key(&question.question_id) == id);
    found.ok_or_else(|| Error::data(&data.join(QUESTIONS), format!("there is no question {id}, which an answer is to")))
}

/// Unpacks a row of the hub's data set: `question_id`, `image_id`, `image`, `question`, `caption`, `gpt_answer`,
/// `category`.
fn unpack(row: &Record, folder: &mut Folder) -> Result<(), Error> {
    let number = folder.count("");
    let image = row.image("image")?.ok_or_else(|| row.error("no image"))?;
    let name = if row.has("image_id") { row.text("image_id")? } else { format!("{:03}", number + 1) };
    let image = folder.image("images", &name, image)?;
    let category = row.text("category")?;
    let category = category.trim_start_matches("llava_bench_");
    let line = json!({"question_id": number, "image": image, "category": category, "text": row.text("question")?});
    folder.line(QUESTIONS, &line.to_string())?;
    let caption = row.text("caption").or_else(|_| row.texts("caption").map(|texts| texts.join("\n")))?;
    folder.line(CONTEXT, &json!({"id": name, "image": image, "caption": caption}).to_string())?;
    folder.line(REFERENCE, &json!({"question_id": number, "text": row.text("gpt_answer")?}).to_string())
}
