//! The built-in checkpoint's first logits and answers, beside those that are recorded in this binary.

use std::path::Path;

use anyhow::Context;
use burn::tensor::DType;
use secateur_backends::VlmBackend;
use serde::{Deserialize, Serialize};

use crate::{
    engine::{Decoding, answer, go_on},
    eval::prompt,
    model::{Beside, DEMO, LoadOptions, Model, open},
    pruner::{Params, selector},
    task::{Demo, Task},
    text::strip,
};

/// The recorded answers: written by the test below, with `SECATEUR_TEST_RECORD`, from the backend whose runs equal the official code's.
const RECORDED: &str = include_str!("recorded.json");
/// The runs: without pruning, and with it.
const RUNS: [(&str, Option<usize>); 2] = [("none", None), ("fastervlm", Some(64))];
/// Questions of each run.
const QUESTIONS: usize = 8;
/// How far logits in f32 may be from the recorded ones.
const TOLERANCE: f64 = 1e-3;

/// A question's outcome.
#[derive(Deserialize, Serialize)]
struct Outcome {
    text: String,
    /// The first logits; empty where they are not recorded.
    logits: Vec<f32>,
}

/// The answers of the checkpoint on a device, compared.
pub(super) struct Answers {
    pub(super) weights: DType,
    /// How many answers are the recorded ones, of how many.
    pub(super) same: usize,
    pub(super) all: usize,
    /// The largest difference of the first logits.
    pub(super) error: f64,
}

impl Answers {
    /// Asks the questions with weights of type `weights`.
    pub(super) fn check<B: VlmBackend>(weights: DType, device: &B::Device) -> anyhow::Result<Self> {
        let recorded: Vec<Outcome> = serde_json::from_str(RECORDED).context("the recorded answers cannot be read")?;
        let found = outcomes::<B>(weights, device)?;
        let same = found.iter().zip(&recorded).filter(|(found, recorded)| found.text == recorded.text).count();
        let mut error = if found.len() == recorded.len() { 0.0f64 } else { f64::INFINITY };
        for (found, recorded) in found.iter().zip(&recorded).filter(|(_, recorded)| !recorded.logits.is_empty()) {
            let differences = found.logits.iter().zip(&recorded.logits).map(|(a, b)| f64::from((a - b).abs()));
            let is_whole = found.logits.len() == recorded.logits.len() && found.logits.iter().all(|x| x.is_finite());
            error = differences.fold(if is_whole { error } else { f64::INFINITY }, f64::max);
        }
        Ok(Self { weights, same, all: recorded.len(), error })
    }

    /// In f32 the logits must be the recorded ones. In 16 bits a near tie may go the other way, in one of the answers.
    pub(super) fn is_right(&self) -> bool {
        match self.weights {
            DType::F32 => self.same == self.all && self.error <= TOLERANCE,
            _ => self.same + 1 >= self.all && self.error.is_finite(),
        }
    }
}

fn outcomes<B: VlmBackend>(weights: DType, device: &B::Device) -> anyhow::Result<Vec<Outcome>> {
    let options = LoadOptions { dtype: Some(weights), ..LoadOptions::default() };
    let model: Model<B> = open(DEMO, Beside::default())?.load(options, device)?;
    let samples = Demo.samples(Path::new(""))?;
    let mut outcomes = Vec::new();
    for (method, budget) in RUNS {
        let selector = selector::<B>(method, Params::default())?;
        for sample in &samples[..QUESTIONS] {
            let media = sample.media.iter().map(|image| image.open(None)).collect::<Result<Vec<_>, _>>()?;
            let prompt = prompt(&model, sample, &vec![1; media.len()])?;
            let decoding = Decoding::greedy(Demo.card().max_new_tokens);
            let (_, answer) = answer(&model, &media, &prompt, &selector, budget.map(Into::into), decoding, go_on)?;
            let text = strip(&model.tokenizer().decode(&answer.ids)).to_owned();
            outcomes.push(Outcome { text, logits: answer.first_logits });
        }
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use secateur_backends::Flex;

    use super::*;

    /// Of these, the questions whose first logits are recorded, too.
    const WITH_LOGITS: usize = 2;

    /// With `SECATEUR_TEST_RECORD`, records what the checkpoint gives; else compares it.
    #[test]
    fn the_recorded_answers_are_those_of_the_checkpoint() {
        if std::env::var_os("SECATEUR_TEST_RECORD").is_some() {
            let mut found = outcomes::<Flex>(DType::F32, &Default::default()).unwrap();
            for (i, outcome) in found.iter_mut().enumerate() {
                outcome.logits.truncate(if i % QUESTIONS < WITH_LOGITS { usize::MAX } else { 0 });
                outcome.logits.iter_mut().for_each(|logit| *logit = (*logit * 1e4).round() / 1e4);
            }
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/check/recorded.json");
            std::fs::write(path, serde_json::to_string(&found).unwrap() + "\n").unwrap();
            return;
        }
        for weights in [DType::F32, DType::F16, DType::BF16] {
            let found = Answers::check::<Flex>(weights, &Default::default()).unwrap();
            assert_eq!(found.all, 2 * QUESTIONS);
            assert!(found.is_right(), "{weights:?}: {} of {}, {}", found.same, found.all, found.error);
        }
        let far = Answers { weights: DType::F32, same: 16, all: 16, error: 2.0 * TOLERANCE };
        let broken = Answers { weights: DType::F16, same: 16, all: 16, error: f64::INFINITY };
        let others = Answers { weights: DType::F16, same: 14, all: 16, error: 0.1 };
        assert!([far, broken, others].iter().all(|answers| !answers.is_right()));
    }
}
