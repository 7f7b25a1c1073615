//! LLaVA-Bench (in the Wild): 60 open questions about 24 pictures.
//!
//! A line of `questions.jsonl`: `{"question_id": 0, "image": "001.jpg", "category": "conv", "text": "What is the name of this
//! famous sight in the photo?"}`
//!
//! Judged by GPT-4 against GPT-4's own answers, pair by pair: LLaVA's `llava/eval/eval_gpt_review_bench.py` reads the answers
//! file of a run as it is. There is no judge here yet, so a run gives answers and no score.

use std::path::Path;

use super::{Answer, Protocol, Report, Sample, Task, ids::ById, llava_only, questions::samples};
use crate::Error;

/// The benchmark.
#[derive(Clone, Copy, Debug)]
pub struct LlavaBench;

impl Task for LlavaBench {
    fn name(&self) -> &'static str {
        "llava-bench"
    }

    fn about(&self) -> &'static str {
        "LLaVA-Bench (in the Wild): open questions; answers for its judge"
    }

    fn default_data(&self) -> &'static str {
        "playground/data/eval/llava-bench-in-the-wild"
    }

    fn max_new_tokens(&self) -> usize {
        1024
    }

    fn headline(&self) -> &'static str {
        ""
    }

    fn samples(&self, data: &Path) -> Result<Vec<Sample>, Error> {
        let mut samples = samples(data, "questions.jsonl", &["images"])?;
        for sample in &mut samples {
            sample.clip_text.clone_from(&sample.text);
        }
        Ok(samples)
    }

    fn score(&self, data: &Path, answers: &[Answer], protocol: Protocol) -> Result<Report, Error> {
        llava_only(self, protocol, data)?;
        let mut notes = ById::new(answers).repeated();
        notes.push("judged by LLaVA's eval_gpt_review_bench.py, which takes the answers file".to_owned());
        Ok(Report { benchmark: "llava-bench", protocol, n: answers.len(), metrics: Vec::new(), notes })
    }
}
