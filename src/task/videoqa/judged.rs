//! The requests to GPT-3.5 about answers, and the score from its verdicts.

use std::path::Path;

use serde_json::Value;

use super::{Answered, VideoQa, answered};
use crate::{
    Error,
    judge::Request,
    statistics::Marks,
    task::{Answer, Judged, Protocol, Report},
};

/// The instruction to the judge, in our words, with the meaning of the official one.
const INSTRUCTION: &str = "\
You check answers to questions about videos that you cannot see. Compare the prediction with the correct answer: it is right if it means the \
same, and other words for the same thing are fine; what matters is the meaning, not the wording or the length. Say whether it is right, yes or \
no, and how well it fits, as a whole number from 0 (not at all) to 5 (fully). Reply with one Python dictionary and nothing else, like \
{'pred': 'yes', 'score': 4}.";

impl Judged for VideoQa {
    fn judge(&self, _protocol: Protocol) -> &'static str {
        "gpt-3.5-turbo"
    }

    fn requests(&self, data: &Path, answers: &[Answer], instruction: Option<&Value>) -> Result<Vec<Request>, Error> {
        let instruction = match instruction {
            None => INSTRUCTION,
            Some(Value::String(text)) => text.trim_end(),
            Some(_) => {
                let reason = "the instruction to the judge of answers about videos is one text, not a JSON object";
                return Err(Error::data(data, reason));
            }
        };
        let request = |Answered { question, label, answer }: Answered| Request {
            text: format!(
                "{instruction}\n\nQuestion: {}\nCorrect answer: {}\nPrediction: {}",
                question.question, label.answer, answer.text
            ),
            max_tokens: 64,
            temperature: 0.0,
        };
        Ok(answered(data, answers)?.into_iter().map(request).collect())
    }

    /// The verdict, 1 for yes, 0 for no and −1 for neither, and the points.
    fn verdict(&self, reply: &str) -> Option<Vec<f64>> {
        let pred = value(reply, "pred")?.to_lowercase();
        let right = if pred.contains("yes") {
            1.0
        } else if pred.contains("no") {
            0.0
        } else {
            -1.0
        };
        let score: f64 = value(reply, "score")?.parse().ok()?;
        // The official code truncates with Python's int().
        (0.0..=5.0).contains(&score).then(|| vec![right, score.trunc()])
    }

    fn report(
        &self,
        data: &Path,
        answers: &[Answer],
        verdicts: &[Option<Vec<f64>>],
        protocol: Protocol,
    ) -> Result<Report, Error> {
        let mut report = self.words(data, answers, protocol)?;
        let given: Vec<&[f64]> = verdicts.iter().flatten().map(Vec::as_slice).collect();
        let said = |what: f64| given.iter().filter(|verdict| verdict.first() == Some(&what)).count();
        let (yes, no) = (said(1.0), said(0.0));
        let mut marks = Marks::new("accuracy");
        for (Answered { label, answer, .. }, verdict) in answered(data, answers)?.iter().zip(verdicts) {
            let said = verdict.as_ref().and_then(|verdict| verdict.first());
            if let Some(right) = said.filter(|said| **said >= 0.0) {
                marks.mark(answer.worth(*right, &label.answer));
            }
        }
        report.marks = marks;
        // Without verdicts there is no score.
        if !given.is_empty() {
            let score = given.iter().filter_map(|verdict| verdict.get(1)).sum::<f64>() / given.len() as f64;
            report.metrics.insert(0, ("score".to_owned(), score));
        }
        if yes + no > 0 {
            report.metrics.insert(0, ("accuracy".to_owned(), yes as f64 / (yes + no) as f64));
        }
        if yes + no < given.len() {
            report.notes.push(format!("{} answer(s) are neither right nor wrong to the judge", given.len() - yes - no));
        }
        if given.len() < verdicts.len() {
            let without = verdicts.len() - given.len();
            report.notes.push(format!("{without} answer(s) got no verdict from the judge and are left out"));
        }
        Ok(report)
    }
}

/// The value of `key`, a string or a number, in a dictionary as Python or JSON writes it; other text may stand around.
fn value<'a>(reply: &'a str, key: &str) -> Option<&'a str> {
    let dictionary = reply.get(reply.find('{')?..)?;
    let quoted = ["'", "\""].map(|quote| format!("{quote}{key}{quote}"));
    let after = quoted.iter().find_map(|key| Some(&dictionary[dictionary.find(key)? + key.len()..]))?;
    let value = after.trim_start().strip_prefix(':')?.trim_start();
    let end = match value.chars().next()? {
        quote @ ('\'' | '"') => return value[1..].split(quote).next().map(str::trim),
        _ => value.find([',', '}'])?,
    };
    Some(value[..end].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read_out_of_what_judges_write() {
        for (reply, expected) in [
            ("{'pred': 'yes', 'score': 4.8}", Some(vec![1.0, 4.0])),
            ("Sure: {\"pred\": \"No\", \"score\": \"2\"}.", Some(vec![0.0, 2.0])),
            ("{'pred': 'yes', 'score': 4, 'reason': \"it's so\"}", Some(vec![1.0, 4.0])),
            ("{'pred': 'unsure', 'score': 0}", Some(vec![-1.0, 0.0])),
            ("} see {", None),
            ("{'pred': 'yes', 'score': nan}", None),
            ("{'pred': 'yes', 'score': 7}", None),
            ("{'pred': 'yes'}", None),
            ("{'pred': 'é', 'score'", None),
            ("yes, 5", None),
        ] {
            assert_eq!(VideoQa::MSVD.verdict(reply), expected, "{reply}");
        }
    }
}
