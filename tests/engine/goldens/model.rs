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

use std::ops::ControlFlow;

use crate::common::{
    CLIP, Cpu, LAYOUTS, fixture,
    golden::{Question, compare, compares_all, dtype, is_brief, is_wgpu, load, overlap, values},
    ids, json, on_every_backend, tensors, worst,
};
use burn::tensor::DType;
use secateur::{
    Error,
    engine::{Decoding, Generated, answer, go_on},
    image::decode,
    model::{Model, VisualTokens},
    pruner::{ClsAttention, FasterVlm, Needs, NoPruning, Params, Selector, methods},
    text::Prompt,
};
use secateur_backends::{Job, VlmBackend};

const ROOT: &str = "tiny-llava-1.5";
const CASES: &str = "tiny-llava-1.5/cases.json";

/// On a GPU one layout stands for both: they differ only in how they are read, which has no backend in it.
fn layouts<B: VlmBackend>(device: &B::Device) -> &'static [&'static str] {
    if compares_all::<B>(device) { &LAYOUTS } else { &LAYOUTS[..1] }
}

#[derive(Clone)]
struct Stages;

impl Job for Stages {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let none = tensors("tiny-llava-1.5/expected/none.safetensors");
        let faster = tensors("tiny-llava-1.5/expected/fastervlm.safetensors");
        for layout in layouts::<B>(&device) {
            let model = load::<B>(layout, None, dtype::<B>(), &device);
            for case in json(CASES).as_array().unwrap() {
                let id = case["id"].as_str().unwrap();
                let image = decode(&fixture("tiny-llava-1.5").join(case["image"].as_str().unwrap())).unwrap();
                let golden = |name: &str| &none[&format!("{id}.{name}")].values;

                let views = model.vlm().preprocess(&image.clone().into(), NoPruning::default().tiling).unwrap();
                let pixels = &views.pixels;
                let sampled: Vec<f32> = (0..3)
                    .flat_map(|c| (0..336).step_by(16).map(move |y| (c, y)))
                    .flat_map(|(c, y)| (0..336).step_by(16).map(move |x| (c * 336 + y) * 336 + x))
                    .map(|at| pixels[at])
                    .collect();
                let found = worst(&sampled, golden("pixel_values_sub"));
                assert!(found < 1e-6, "{layout} {id} pixels: {found}");

                let needs = Needs { cls_attention: ClsAttention::Selected, ..Needs::default() };
                let sight = model.encode(views, needs).unwrap();
                // Every 36th token, [CLS] included, which the features leave out.
                let rows: Vec<f32> =
                    (1..17).flat_map(|i| values(sight.features.clone().narrow(1, 36 * i - 1, 1))).collect();
                let found = worst(&rows, &golden("clip_hidden_m2_rows")[64..]);
                assert!(found < 1e-4, "{layout} {id} hidden states: {found}");

                let attention = sight.cls_attention.expect("it was asked for");
                let found = worst(&values(attention.mean_dim(2)), &faster[&format!("{id}.cls_attention")].values);
                assert!(found < 1e-6, "{layout} {id} attention: {found}");

                let projected = model.project(sight.features).unwrap();
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

/// Runs compared, runs of VisPruner that keep other patches, and what the runs keep in common with the official ones that
/// rounding changes.
#[derive(Default)]
struct Tally {
    compared: usize,
    differing: usize,
    chaotic: Vec<f64>,
}

impl Job for Answers {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let mut tally = Tally::default();
        for layout in layouts::<B>(&device) {
            let model = load::<B>(layout, Some(CLIP), dtype::<B>(), &device);
            for method in methods(Params::default()).iter().map(|method| method.name()) {
                // Where there is an official output; FastV's is another test's.
                if method != "fastv" && fixture(&format!("{ROOT}/expected/{method}.json")).is_file() {
                    answers(&model, layout, method, &device, &mut tally);
                }
            }
        }
        // 7 without pruning, 28 each of FasterVLM, CDPruner and DATP, 15 of VisPruner, in two layouts; fewer on GPUs.
        let wanted = match (compares_all::<B>(&device), is_wgpu::<B>(&device)) {
            (true, _) => 212,
            (_, true) if is_brief::<B>(&device) => 7,
            (_, true) => 15,
            _ => 32,
        };
        assert_eq!(tally.compared, wanted);
        let name = B::name(&device);
        eprintln!("{name}: {} of {} robust runs keep other patches", tally.differing, tally.compared);
        assert!(tally.differing <= 6, "{} runs of VisPruner keep other patches", tally.differing);
        let chaotic = match (compares_all::<B>(&device), is_wgpu::<B>(&device)) {
            (true, _) => 26,
            (_, true) => 0,
            _ => 3,
        };
        assert_eq!(tally.chaotic.len(), chaotic, "runs of VisPruner that rounding changes");
        eprintln!("{name}: of these, in common: {:?}", tally.chaotic);
        // The official code in f32 and in f64 has 0.55 to 0.76 in common at worst.
        assert!(tally.chaotic.iter().all(|share| *share > 0.5), "{:?}", tally.chaotic);
    }
}

fn answers<B: VlmBackend>(model: &Model<B>, layout: &str, method: &str, device: &B::Device, tally: &mut Tally) {
    let expected = json(&format!("{ROOT}/expected/{method}.json"));
    let golden = tensors(&format!("{ROOT}/expected/{method}.safetensors"));
    let none = method == "none";
    let every_budget = none || compares_all::<B>(device);
    let cases = json(CASES);
    let cases = cases.as_array().unwrap();
    // On a GPU one budget stands for all: `contracts/methods.rs` has every one. In software an image takes seconds. How cases
    // differ is seen without pruning, how methods do from given cues, too (`goldens/methods.rs`, `goldens/cdpruner.rs`).
    let count = match (none, is_brief::<B>(device), is_wgpu::<B>(device)) {
        (true, true, _) => 3,
        (_, true, _) => 1,
        (false, _, true) => 2,
        _ => cases.len(),
    };
    for case in &cases[..count] {
        let id = case["id"].as_str().unwrap();
        for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
            if !every_budget && tokens != "64" {
                continue;
            }
            let label = format!("{layout} {method} {id} {tokens}");
            let tokens_kept = tokens.parse().ok();
            let params = Params::default();
            // What rounding changes is compared up to the kept patches.
            let robust = run["robust"] != false;
            let max_new_tokens = if robust { ids::<u32>(&run["output_ids"]).len() } else { 1 };
            let question = Question { root: ROOT, case, method, tokens: tokens_kept, params, max_new_tokens };
            let found = question.ask(model);
            if !robust {
                tally.chaotic.push(overlap(&found.kept, &crate::common::indices(&run["kept"])));
                continue;
            }
            let logits = &golden[&format!("{id}.{tokens}.first_logits")].values;
            let same = compare(&found, &expected["cases"][id], run, logits, &label).is_ok();
            // VisPruner amplifies the last bits of the tower, which differ between backends; from equal features its
            // picks are equal everywhere (`contracts/methods.rs`).
            let may_differ = method == "vispruner" && B::name(&B::Device::default()) != "flex";
            assert!(same || may_differ, "{label}: other patches");
            tally.differing += usize::from(!same);
            tally.compared += 1;
        }
    }
}

#[test]
fn kept_patches_logits_and_answers_are_the_official_ones() {
    on_every_backend(&Answers);
}

#[derive(Clone)]
struct FastVAnswers;

impl Job for FastVAnswers {
    type Output = ();

    /// The official run caches the keys of one layer twice, so that only its first logits are comparable.
    fn run<B: VlmBackend>(self, device: B::Device) {
        let expected = json("tiny-llava-1.5/expected/fastv.json");
        let golden = tensors("tiny-llava-1.5/expected/fastv.safetensors");
        let params = Params { fastv_layer: 3, ..Params::default() };
        for layout in layouts::<B>(&device) {
            let model = load::<B>(layout, None, dtype::<B>(), &device);
            let count = if is_brief::<B>(&device) { 2 } else { usize::MAX };
            for case in json(CASES).as_array().unwrap().iter().take(count) {
                let id = case["id"].as_str().unwrap();
                let tokens = Some(288);
                let found =
                    Question { root: ROOT, case, method: "fastv", tokens, params, max_new_tokens: 3 }.ask(&model);
                let wanted: Vec<usize> = ids(&expected["cases"][id]["kept_patch_indices"]);
                assert_eq!(found.kept, [wanted], "{layout} {id}");
                assert_eq!(found.visual_tokens, 288);
                let logits = &golden[&format!("{id}.fastv.first_logits")].values;
                let difference = worst(&found.logits[..logits.len()], logits);
                assert!(difference < 1e-3, "{layout} {id} logits: {difference}");
            }
        }
    }
}

#[test]
fn fastv_keeps_the_official_patches_inside_the_model() {
    on_every_backend(&FastVAnswers);
}

/// A cut that keeps everything changes nothing, at any layer, in the whole answer.
#[test]
fn fastv_with_the_full_budget_is_the_baseline() {
    let model = load::<Cpu>(LAYOUTS[0], None, None, &Default::default());
    let case = &json(CASES)[0];
    let ask = |method, layer| {
        let params = Params { fastv_layer: layer, ..Params::default() };
        Question { root: ROOT, case, method, tokens: Some(576), params, max_new_tokens: 8 }.ask(&model)
    };
    let baseline = ask("none", 2);
    for layer in 1..4 {
        let cut = ask("fastv", layer);
        assert_eq!(cut.ids, baseline.ids, "layer {layer}");
        assert!(worst(&cut.logits, &baseline.logits) < 1e-4, "layer {layer}");
    }
}

/// An answer about a boat, of which FasterVLM keeps so many tokens.
fn boat(
    model: &Model<Cpu>,
    question: &str,
    tokens: usize,
    decoding: Decoding,
    on_token: impl FnMut(&[u32]) -> ControlFlow<()>,
) -> Result<(Vec<VisualTokens<Cpu>>, Generated), Error> {
    let image = decode(&fixture("tiny-llava-1.5/images/boat_123x90.png")).unwrap();
    let prompt = Prompt::new(&model.chat().render(question, &[1]).unwrap(), question, model.tokenizer()).unwrap();
    let selector = Selector::Before(Box::new(FasterVlm));
    answer(model, &[image.into()], &prompt, &selector, Some(tokens.into()), decoding, on_token)
}

/// The weights' type changes what they take in memory, not the answer: the fixtures are exact in f16.
#[test]
fn sixteen_bit_weights_answer_like_their_f32_copy() {
    let answer = |dtype| {
        let model = load::<Cpu>(LAYOUTS[1], None, dtype, &Default::default());
        let (media, answer) = boat(&model, "What is this?", 29, Decoding::greedy(8), go_on).unwrap();
        (media[0].keep.clone(), answer.ids, answer.first_logits)
    };
    let (wide, ids, logits) = answer(Some(DType::F32));
    for dtype in [None, Some(DType::F16)] {
        let (keep, found, _) = answer(dtype);
        assert_eq!((keep, found), (wide.clone(), ids.clone()), "{dtype:?}");
    }
    // bf16 rounds weights that are exact in f16, and inputs: another model, whose logits are near.
    let (keep, _, rounded) = answer(Some(DType::BF16));
    let shared = overlap(keep.indices(), wide.indices());
    let off = worst(&rounded, &logits) / worst(&logits, &vec![0.0; logits.len()]);
    eprintln!("bf16: {shared:.2} of the patches, logits off by {off:.3} of the largest");
    assert!(shared > 0.8 && off < 0.1, "{shared} of the patches, {off}");
}

#[test]
fn an_answer_ends_at_the_end_token_the_limit_the_caller_or_the_context() {
    let mut model = load::<Cpu>(LAYOUTS[1], None, None, &Default::default());
    let golden = &json("tiny-llava-1.5/expected/fastervlm.json")["cases"]["c1"]["runs"]["64"];
    let wanted: Vec<u32> = ids(&golden["output_ids"]);
    let question = json(CASES)[0]["question"].as_str().unwrap().to_owned();
    let ask = |model: &Model<Cpu>, longest| boat(model, &question, 64, Decoding::greedy(longest), go_on).unwrap().1.ids;

    let ends = model.ends().to_vec();
    model.set_ends(vec![7, wanted[2]]);
    assert_eq!(ask(&model, 16), wanted[..2], "the end token is no part of the answer");
    model.set_ends(ends);
    assert_eq!(ask(&model, 5), wanted[..5]);
    let stopped = boat(&model, &question, 64, Decoding::greedy(16), |ids| {
        if ids.len() == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap().1.ids, wanted[..3]);
    model.set_ends(vec![wanted[4]]);
    assert_eq!(ask(&model, usize::MAX), wanted[..4]);

    // The model is made for 4,096 positions.
    let long = "boat ".repeat(5000);
    let refused = boat(&model, &long, 64, Decoding::greedy(1), go_on).unwrap_err().to_string();
    assert!(refused.contains("tokens") && refused.contains("4096"), "{refused}");
}
