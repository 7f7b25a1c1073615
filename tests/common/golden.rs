//! One end-to-end run against the official one, for any checkpoint.

use std::ops::ControlFlow;

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur::{
    engine::{Decoding, answer, kept},
    image::decode,
    model::{Beside, LoadOptions, Model, open},
    pruner::{Params, Selector, selector},
    text::{Prompt, clip_question, strip},
};
use secateur_backends::VlmBackend;
use serde_json::Value;

use super::{fixture, ids, indices, worst};

/// Below this gap between the two best logits, rounding may decide.
const SURE: f64 = 1e-3;

pub fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

/// The checkpoint in the fixture folder `layout`, with CLIP's text side from the folder `clip` if it is given.
pub fn load<B: VlmBackend>(layout: &str, clip: Option<&str>, dtype: Option<DType>, device: &B::Device) -> Model<B> {
    let clip = clip.map(|name| fixture(name).to_str().unwrap().to_owned());
    let opened =
        open(fixture(layout).to_str().unwrap(), Beside { clip: clip.as_deref(), ..Beside::default() }).unwrap();
    let options = LoadOptions { dtype, joint: clip.is_some(), ..LoadOptions::default() };
    opened.load(options, device).unwrap()
}

/// A question alone, as methods compare it with images.
pub fn asked(question: &str) -> Prompt {
    Prompt { ids: Vec::new(), question: question.to_owned() }
}

/// 16-bit activations cannot meet f32 tolerances: there the weights are widened. Everywhere else they stay as in the
/// file, which is the harder case.
pub fn dtype<B: VlmBackend>() -> Option<DType> {
    (B::activation_dtype(DType::F16) != DType::F32).then_some(DType::F32)
}

/// Whether every official run is compared: on the backend that is the default on CPUs. On others a part of the runs stands for all, since a GPU may be
/// Mesa's software renderer, where a run takes seconds; `SECATEUR_TEST_FULL` compares all on ndarray, too.
pub fn compares_all<B: VlmBackend>(device: &B::Device) -> bool {
    let full = std::env::var_os("SECATEUR_TEST_FULL").is_some();
    B::name(device) == "flex" || full && B::name(device) == "ndarray"
}

/// Whether this is wgpu, the only backend whose GPU may be that renderer.
pub fn is_wgpu<B: VlmBackend>(device: &B::Device) -> bool {
    B::name(device).contains("wgpu")
}

/// Whether a few runs of a test stand for all: on wgpu, unless `SECATEUR_TEST_FULL` is set.
pub fn is_brief<B: VlmBackend>(device: &B::Device) -> bool {
    is_wgpu::<B>(device) && std::env::var_os("SECATEUR_TEST_FULL").is_none()
}

/// A case of a `cases.json`, and how it is to be answered.
pub struct Question<'a> {
    /// The folder of the case's image.
    pub root: &'a str,
    pub case: &'a Value,
    pub method: &'a str,
    pub tokens: Option<usize>,
    pub params: Params,
    pub max_new_tokens: usize,
}

/// What came out.
pub struct Outcome {
    pub prompt_ids: Vec<i64>,
    pub kept: Vec<Vec<usize>>,
    pub visual_tokens: usize,
    pub logits: Vec<f32>,
    pub ids: Vec<u32>,
    pub text: String,
    /// The ids that end an answer.
    pub ends: Vec<u32>,
}

impl Question<'_> {
    pub fn ask<B: VlmBackend>(&self, model: &Model<B>) -> Outcome {
        let image = decode(&fixture(self.root).join(self.case["image"].as_str().unwrap())).unwrap();
        let question = self.case["question"].as_str().unwrap();
        assert_eq!(clip_question(question), self.case["texts"].as_str().unwrap());
        let prompt =
            Prompt::new(&model.chat().render(question, &[1]).unwrap(), &clip_question(question), model.tokenizer())
                .unwrap();
        let selector: Selector<B> = selector(self.method, self.params).unwrap();
        let decoding = Decoding::greedy(self.max_new_tokens);
        let go_on = |_: &[u32]| ControlFlow::Continue(());
        let (seen, answer) =
            answer(model, &[image.into()], &prompt, &selector, self.tokens.map(Into::into), decoding, go_on).unwrap();
        let (kept, visual_tokens) = kept(&seen, &answer);
        let text = model.tokenizer().decode(&answer.ids);
        Outcome {
            prompt_ids: prompt.ids,
            kept,
            visual_tokens,
            logits: answer.first_logits,
            ids: answer.ids,
            text,
            ends: model.ends().to_vec(),
        }
    }
}

/// Compares everything after the selection with the official `run`, if the selection is the official one.
///
/// # Errors
/// The share of official patches that are kept, where they are not all and no others.
pub fn compare(found: &Outcome, expected: &Value, run: &Value, logits: &[f32], label: &str) -> Result<(), f64> {
    assert_eq!(found.prompt_ids, ids::<i64>(&expected["input_ids"]), "{label}");
    // Every prompt here has one placeholder.
    let prompt = found.prompt_ids.len() - 1 + found.visual_tokens;
    assert_eq!(prompt as u64, run["prefill_len"].as_u64().unwrap(), "{label}");
    if let Some(kept) = run.get("kept") {
        let wanted = indices(kept);
        if found.kept != wanted {
            return Err(overlap(&found.kept, &wanted));
        }
    }
    // llava-hf pads the vocabulary.
    let difference = worst(&found.logits[..logits.len()], logits);
    assert!(difference < 1e-3, "{label} logits: {difference}");
    // The official ids hold the end token, ours do not.
    let wanted: Vec<u32> = ids(&run["output_ids"]);
    let wanted: Vec<u32> = wanted.into_iter().take_while(|id| !found.ends.contains(id)).collect();
    let gaps: Vec<f64> = ids(&run["top1_top2_logit_gap_per_step"]);
    let sure = gaps.iter().position(|&gap| gap < SURE).unwrap_or(wanted.len()).min(wanted.len());
    assert_eq!(found.ids[..sure], wanted[..sure], "{label}");
    if gaps.iter().all(|&gap| gap >= SURE) {
        assert_eq!(found.ids, wanted, "{label}");
        // The larger sets have no text.
        if let Some(text) = run.get("text") {
            assert_eq!(strip(&found.text), text.as_str().unwrap(), "{label}");
        }
    }
    Ok(())
}

/// The share of the `wanted` patches that are among those `kept`.
pub fn overlap(kept: &[Vec<usize>], wanted: &[Vec<usize>]) -> f64 {
    assert_eq!(kept.len(), wanted.len());
    let common: usize = kept.iter().zip(wanted).map(|(a, b)| a.iter().filter(|patch| b.contains(patch)).count()).sum();
    common as f64 / wanted.iter().map(Vec::len).sum::<usize>() as f64
}
