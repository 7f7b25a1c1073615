//! The tiny LLaVA-1.5, stage by stage against the official code, in both layouts, on every backend compiled in.
//!
//! | stage | tolerance |
//! |---|---|
//! | pixels | 1e-6 |
//! | tower's hidden states (values up to about 9) | 1e-4 |
//! | [CLS] attention, mean over heads | 1e-6 |
//! | projected features (values up to about 12) | 1e-4 |
//! | prompt ids, kept patches | exact |
//! | first logits | 1e-3 |
//! | greedy ids | exact up to the first step whose recorded gap is under 1e-3 |

mod common;

use std::ops::ControlFlow;

use burn::tensor::{Tensor, backend::Backend};
use common::{LAYOUTS, fixture, ids, indices, json, tensors, worst};
use secateur::{
    generate::{Sampling, generate},
    image::{Aspect, decode},
    model::{Llava, open},
    pruner::{ClsAttention, Needs, pruner},
    text::{Prompt, vicuna_v1},
};
use secateur_backends::{BACKENDS, Job, VlmBackend, run};
use serde_json::Value;

const CASES: &str = "tiny-llava-1.5/cases.json";
/// Below this gap between the two best logits, rounding may decide.
const SURE: f64 = 1e-3;

fn on_every_backend<J: Job + Clone>(job: &J) {
    for backend in BACKENDS.iter().filter(|backend| backend.compiled && backend.name != "cuda") {
        eprintln!("backend {}", backend.name);
        run(backend.name, job.clone()).unwrap();
    }
}

fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().into_vec().unwrap()
}

fn load<B: VlmBackend>(layout: &str, device: &B::Device) -> Llava<B> {
    open(fixture(layout).to_str().unwrap()).unwrap().load(None, device).unwrap()
}

#[derive(Clone)]
struct Stages;

impl Job for Stages {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let none = tensors("tiny-llava-1.5/expected/none.safetensors");
        let faster = tensors("tiny-llava-1.5/expected/fastervlm.safetensors");
        for layout in LAYOUTS {
            let model = load::<B>(layout, &device);
            for case in json(CASES).as_array().unwrap() {
                let id = case["id"].as_str().unwrap();
                let picture = decode(&fixture("tiny-llava-1.5").join(case["image"].as_str().unwrap())).unwrap();
                let golden = |name: &str| &none[&format!("{id}.{name}")].values;

                let pixels = model.processor().pixels(&picture, Aspect::Pad);
                let sampled: Vec<f32> = (0..3)
                    .flat_map(|c| (0..336).step_by(16).map(move |y| (c, y)))
                    .flat_map(|(c, y)| (0..336).step_by(16).map(move |x| (c * 336 + y) * 336 + x))
                    .map(|at| pixels[at])
                    .collect();
                let found = worst(&sampled, golden("pixel_values_sub"));
                assert!(found < 1e-6, "{layout} {id} pixels: {found}");

                let sight = model.look(&picture, Needs { cls_attention: ClsAttention::Selected });
                // Every 36th token, [CLS] included, which the features leave out.
                let rows: Vec<f32> = (1..17).flat_map(|i| values(sight.features.clone().narrow(1, 36 * i - 1, 1))).collect();
                let found = worst(&rows, &golden("clip_hidden_m2_rows")[64..]);
                assert!(found < 1e-4, "{layout} {id} hidden states: {found}");

                let attention = sight.cls_attention.expect("it was asked for");
                let found = worst(&values(attention.mean_dim(2)), &faster[&format!("{id}.cls_attention")].values);
                assert!(found < 1e-6, "{layout} {id} attention: {found}");

                let projected = model.project(sight.features);
                let rows: Vec<f32> = (0..12).flat_map(|i| values(projected.clone().narrow(1, 48 * i, 1))).collect();
                let found = worst(&rows, golden("projector_rows"));
                assert!(found < 1e-4, "{layout} {id} projected: {found}");
            }
        }
    }
}

#[test]
fn every_stage_is_within_its_tolerance() {
    on_every_backend(&Stages);
}

#[derive(Clone)]
struct Answers;

impl Job for Answers {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        for layout in LAYOUTS {
            let model = load::<B>(layout, &device);
            for method in ["none", "fastervlm"] {
                let expected = json(&format!("tiny-llava-1.5/expected/{method}.json"));
                let golden = tensors(&format!("tiny-llava-1.5/expected/{method}.safetensors"));
                for case in json(CASES).as_array().unwrap() {
                    let id = case["id"].as_str().unwrap();
                    for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
                        let logits = &golden[&format!("{id}.{tokens}.first_logits")].values;
                        let label = format!("{layout} {method} {id} {tokens}");
                        compare(&model, case, method, tokens.parse().ok(), &expected["cases"][id], run, logits, &label);
                    }
                }
            }
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one comparison, all of whose parts vary")]
fn compare<B: VlmBackend>(
    model: &Llava<B>,
    case: &Value,
    method: &str,
    tokens: Option<usize>,
    expected: &Value,
    run: &Value,
    logits: &[f32],
    label: &str,
) {
    let picture = decode(&fixture("tiny-llava-1.5").join(case["image"].as_str().unwrap())).unwrap();
    let text = vicuna_v1(case["question"].as_str().unwrap(), 1).unwrap();
    let prompt = Prompt::new(&text, model.tokenizer());
    assert_eq!(prompt.ids, ids::<i64>(&expected["input_ids"]), "{label}");

    let seen = model.see(&picture, &*pruner::<B>(method).unwrap(), tokens).unwrap();
    if run.get("kept").is_some() {
        assert_eq!(seen.keep.indices(), indices(&run["kept"]), "{label}");
    } else {
        assert_eq!(seen.keep.tokens(), 576, "{label}");
    }
    let embeds = model.splice(&prompt, &[seen]);
    let wanted: Vec<u32> = ids(&run["output_ids"]);
    let answer = generate(model, embeds, wanted.len(), Sampling::Greedy, |_| ControlFlow::Continue(())).unwrap();
    // llava-hf pads the vocabulary.
    let found = worst(&answer.first_logits[..logits.len()], logits);
    assert!(found < 1e-3, "{label} logits: {found}");
    let gaps: Vec<f64> = ids(&run["top1_top2_logit_gap_per_step"]);
    let sure = gaps.iter().position(|&gap| gap < SURE).unwrap_or(wanted.len());
    assert_eq!(answer.ids[..sure], wanted[..sure], "{label}");
    if sure == wanted.len() {
        let text = model.tokenizer().decode(&answer.ids);
        assert_eq!(text.trim(), run["text"].as_str().unwrap().trim(), "{label}");
    }
}

#[test]
fn kept_patches_logits_and_answers_are_the_official_ones() {
    on_every_backend(&Answers);
}
