//! Qwen2-VL and Qwen2.5-VL against transformers 4.57.3, and pruned runs against rules that were transcribed independently.
//!
//! Tolerances: pixels and ids to the last bit; merged embeddings 1e-4; cues 1e-4 of the mean; keys 1e-3; logits 1e-3.

use std::collections::BTreeMap;

use secateur::{
    engine::{Answered, Decoding, Engine, Event, Limits, Request},
    image::{DynamicProcessor, PixelLimits, decode},
    messages::Messages,
    model::{Model, VisualTokens},
    pruner::{Budget, ClsAttention, Needs, NoPruning, Params, Selector, selector},
    text::Prompt,
    video::Media,
};
use secateur_backends::{Job, VlmBackend};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{
    Golden, fixture,
    golden::{compares_all, dtype, is_brief, load, values},
    ids, indices, json as read, on_every_backend, tensors, worst,
};

const SETS: [&str; 2] = ["qwen/tiny-qwen2-vl", "qwen/tiny-qwen2.5-vl"];
const METHODS: [&str; 6] = ["fastervlm", "vispruner", "divprune", "cdpruner", "visionzip", "scope"];
/// Below this gap between the two best logits, rounding may decide.
const SURE: f64 = 3e-4;

/// The cases and their messages, with whole paths.
fn cases() -> BTreeMap<String, Value> {
    let mut cases: BTreeMap<String, Value> = serde_json::from_value(read("qwen/cases.json")).unwrap();
    for case in cases.values_mut() {
        let fps = case.get("fps").cloned();
        for message in case["messages"].as_array_mut().unwrap() {
            for part in message["content"].as_array_mut().into_iter().flatten() {
                if let Some(image) = part.get("image").cloned() {
                    part["image"] = json!(fixture("qwen/images").join(image.as_str().unwrap()));
                }
                if let Some(frames) = part.get("video").cloned() {
                    let whole = |frame: &Value| json!(fixture("qwen/video").join(frame.as_str().unwrap()));
                    part["video"] = frames.as_array().unwrap().iter().map(whole).collect();
                    part["fps"] = fps.clone().unwrap();
                }
            }
        }
    }
    cases
}

/// The messages of a case, read from a file as users have it.
fn messages<B: VlmBackend>(case: &Value, model: &Model<B>) -> Messages {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("messages.json");
    std::fs::write(&path, case["messages"].to_string()).unwrap();
    Messages::read(&path, model.frames()).unwrap()
}

fn prompt<B: VlmBackend>(messages: &Messages, model: &Model<B>) -> Prompt {
    messages.prompt(model.chat(), model.frames(), model.tokenizer()).unwrap()
}

/// Answers greedily, past end tokens, as the references were recorded.
fn answer<B: VlmBackend>(
    model: &Model<B>,
    messages: &Messages,
    selector: &Selector<B>,
    budget: Option<Budget>,
    decoding: Decoding,
    limits: Limits,
) -> Answered<B> {
    let media = messages.media.iter().map(|media| media.clone().into()).collect();
    let mut engine = Engine::new(model, limits);
    engine.submit(Request::new(media, prompt(messages, model), selector, budget, decoding));
    let mut found = None;
    engine.run(&mut |event| {
        if let Event::Ended { outcome, .. } = event {
            found = Some(outcome);
        }
        std::ops::ControlFlow::Continue(())
    });
    found.unwrap().unwrap()
}

fn decoding(tokens: usize) -> Decoding {
    Decoding { stops: false, ..Decoding::greedy(tokens) }
}

/// Checks ids up to the first step at which rounding may decide, and returns the number of steps before it.
fn check_ids(found: &[u32], expected: &Value, label: &str) -> usize {
    let gaps: Vec<f64> = serde_json::from_value(expected["top1_top2_logit_gap_per_step"].clone()).unwrap();
    let sure = gaps.iter().take_while(|gap| **gap > SURE).count();
    let wanted = ids::<u32>(&expected["greedy_ids"]);
    assert_eq!(found.len(), wanted.len(), "{label}");
    assert_eq!(found[..sure], wanted[..sure], "{label}");
    sure
}

#[test]
fn images_are_resized_as_torch_does() {
    let processor = DynamicProcessor::read(&fixture("qwen/tiny-qwen2-vl/checkpoint")).unwrap();
    let mut compared = 0;
    for entry in std::fs::read_dir(fixture("qwen/resized")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.contains(".slow.") {
            continue;
        }
        let image = decode(&fixture("qwen/images").join(&name)).unwrap();
        assert!(processor.resized(&image, processor.images).unwrap() == decode(&path).unwrap(), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 6);
}

#[test]
fn sizes_are_chosen_as_transformers_does() {
    let processor = DynamicProcessor::read(&fixture("qwen/tiny-qwen2-vl/checkpoint")).unwrap();
    let mut refused = 0;
    for row in read("qwen/smart_resize.json")["rows"].as_array().unwrap() {
        let [height, width, least, most] = [0, 1, 2, 3].map(|i| row[i].as_u64().unwrap() as usize);
        let found = processor.size((width, height), PixelLimits { least, most });
        match row[4].as_array() {
            Some(expected) => {
                let expected = (expected[1].as_u64().unwrap() as usize, expected[0].as_u64().unwrap() as usize);
                assert_eq!(found.unwrap(), expected, "{row}");
            }
            None => {
                assert!(found.is_err(), "{row}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// The pixels that the tower reads of all images, or of all videos, of a case.
fn pixels<B: VlmBackend>(model: &Model<B>, media: &[Media], video: bool) -> Vec<f32> {
    let of = media.iter().filter(|media| matches!(media, Media::Video(_)) == video);
    of.flat_map(|media| model.vlm().preprocess(media, NoPruning::default().tiling).unwrap().pixels).collect()
}

#[derive(Clone)]
struct Whole;

impl Job for Whole {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        for set in SETS {
            let model: Model<B> = load(&format!("{set}/checkpoint"), None, dtype::<B>(), &device);
            for (id, case) in cases() {
                if is_brief::<B>(&device) && !["c1_single", "c8_video_odd"].contains(&id.as_str()) {
                    continue;
                }
                let expected = read(&format!("{set}/expected/{id}.json"));
                let golden = tensors(&format!("{set}/expected/{id}.safetensors"));
                check_whole(&model, &case, &expected, &golden, &format!("{set} {id}"));
            }
        }
    }
}

fn check_whole<B: VlmBackend>(
    model: &Model<B>,
    case: &Value,
    expected: &Value,
    golden: &BTreeMap<String, Golden>,
    label: &str,
) {
    let messages = messages(case, model);
    let prompt = prompt(&messages, model);
    for (field, video) in [("pixel_values", false), ("pixel_values_videos", true)] {
        let found = pixels(model, &messages.media, video);
        if let Some(sum) = expected.get(field).and_then(|field| field["sha256_f32_le"].as_str()) {
            let bytes: Vec<u8> = found.iter().flat_map(|value| value.to_le_bytes()).collect();
            let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(found, sum, "{label}: {field}");
        } else {
            assert!(found.is_empty(), "{label}: {field}");
        }
    }

    let none = selector::<B>("none", Params::default()).unwrap();
    let Answered { visual, generated, .. } = answer(model, &messages, &none, None, decoding(24), Limits::default());
    let tokens: Vec<(usize, bool)> = visual
        .iter()
        .zip(&messages.media)
        .map(|(tokens, media)| (tokens.order.len(), matches!(media, Media::Video(_))))
        .collect();
    assert_eq!(model.processor_ids(&prompt, &tokens), ids::<i64>(&expected["input_ids"]), "{label}");
    check_positions(model, &prompt, &visual, expected, label);

    let needs = Needs { cls_attention: ClsAttention::Selected, keys: true, relevance: true, ..Needs::default() };
    let (mut embeds, mut cue, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    for (i, media) in messages.media.iter().enumerate() {
        let encoded = model.encode_media(media, NoPruning::default().tiling, needs).unwrap();
        let cues = model.cues(&encoded, needs, &prompt, i).unwrap();
        embeds.extend(values(cues.features.unwrap()));
        cue.extend(values(cues.cls_attention.unwrap()));
        keys.extend(values(cues.keys.unwrap()));
    }
    if !messages.media.is_empty() {
        let mean = golden["cue"].values.iter().sum::<f32>() / golden["cue"].values.len() as f32;
        for (name, found, tolerance) in
            [("merged_embeds", &embeds, 1e-4), ("cue", &cue, 1e-4 * mean), ("keys", &keys, 1e-3)]
        {
            let worst = worst(found, &golden[name].values);
            assert!(worst <= tolerance, "{label}: {name} {worst}");
        }
        check_relevance(model, &messages, &prompt, &golden["relevance_cosine"].values, label);
    }
    let worst = worst(&generated.first_logits, &golden["first_logits"].values);
    assert!(worst < 1e-3, "{label}: logits {worst}");
    assert!(check_ids(&generated.ids, expected, label) > 4, "{label}");

    let with = &expected["generate_with_own_repetition_penalty"];
    let penalty = with["penalty"].as_f64().unwrap() as f32;
    assert_eq!(model.repetition_penalty(), penalty, "{label}");
    let decoding = Decoding { repetition_penalty: penalty, ..decoding(24) };
    let found = answer(model, &messages, &none, None, decoding, Limits { step_rows: 7, ..Limits::default() });
    assert_eq!(found.generated.ids, ids::<u32>(&with["ids"]), "{label}: with a penalty, read in parts");
}

fn check_positions<B: VlmBackend>(
    model: &Model<B>,
    prompt: &Prompt,
    visual: &[VisualTokens<B>],
    expected: &Value,
    label: &str,
) {
    let placed = model.place(prompt, visual);
    let rows: Vec<usize> = (0..placed.keys.len()).collect();
    let found = placed.positions.axes(&rows);
    for (axis, wanted) in expected["position_ids"].as_array().unwrap().iter().enumerate() {
        let found: Vec<u32> = found.iter().map(|position| position[axis]).collect();
        assert_eq!(found, ids::<u32>(wanted), "{label}: axis {axis}");
    }
    assert_eq!(placed.positions.end(rows.len()) as u64, expected["next_position"].as_u64().unwrap(), "{label}");
}

/// Compares the mean cosine of each token with the user's text; without media there is none.
fn check_relevance<B: VlmBackend>(
    model: &Model<B>,
    messages: &Messages,
    prompt: &Prompt,
    expected: &[f32],
    label: &str,
) {
    let mut found = Vec::new();
    let needs = Needs { relevance: true, ..Needs::default() };
    for (i, media) in messages.media.iter().enumerate() {
        let encoded = model.encode_media(media, NoPruning::default().tiling, needs).unwrap();
        let cues = model.cues(&encoded, needs, prompt, i).unwrap();
        let (image, text) = (cues.image_embeds.unwrap(), cues.text_embeds.unwrap());
        let width = text.dims()[1];
        let unit = |row: &[f32]| -> Vec<f64> {
            let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
            row.iter().map(|x| f64::from(*x) / norm).collect()
        };
        let texts: Vec<Vec<f64>> = values(text).chunks(width).map(unit).collect();
        for row in values(image).chunks(width).map(unit) {
            let cosine = |text: &Vec<f64>| row.iter().zip(text).map(|(a, b)| a * b).sum::<f64>();
            found.push((texts.iter().map(cosine).sum::<f64>() / texts.len() as f64) as f32);
        }
    }
    let worst = worst(&found, expected);
    assert!(worst < 1e-4, "{label}: relevance {worst}");
}

#[test]
fn unpruned_runs_are_those_of_transformers() {
    on_every_backend(&Whole);
}

#[derive(Clone)]
struct Pruned;

impl Job for Pruned {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let all = compares_all::<B>(&device);
        for set in SETS {
            let model: Model<B> = load(&format!("{set}/checkpoint"), None, dtype::<B>(), &device);
            let cases = cases();
            for method in METHODS {
                let expected = read(&format!("{set}/expected/{method}.json"));
                let golden = tensors(&format!("{set}/expected/{method}.safetensors"));
                let selector = selector::<B>(method, Params::default()).unwrap();
                let (mut compared, mut steps) = (0, 0);
                for (id, runs) in expected["runs"].as_object().unwrap() {
                    for (percent, run) in runs.as_object().unwrap() {
                        if !all && (percent != "20" || !["c2_two_images", "c8_video_odd"].contains(&id.as_str())) {
                            continue;
                        }
                        let label = format!("{set} {method} {id} {percent}%");
                        let messages = messages(&cases[id], &model);
                        let budget = Budget::Share(percent.parse().unwrap());
                        let found = answer(&model, &messages, &selector, Some(budget), decoding(16), Limits::default());
                        let logits = &golden[&format!("{id}.{percent}.first_logits")].values;
                        if let Some(sure) = check_run(&found, run, logits, &label) {
                            compared += 1;
                            steps += sure;
                        }
                    }
                }
                assert!(compared >= if all { 24 } else { 2 }, "{set} {method}: {compared} runs");
                assert!(steps >= 12 * compared, "{set} {method}: {steps} steps of {compared} runs are sure");
            }
        }
    }
}

/// Compares a pruned run, if all that was kept is equal, which it must be where the reference is robust; returns the number of steps that are sure.
fn check_run<B: VlmBackend>(found: &Answered<B>, run: &Value, logits: &[f32], label: &str) -> Option<usize> {
    let kept: Vec<Vec<usize>> = found.visual.iter().flat_map(|visual| visual.keep.indices().to_vec()).collect();
    let wanted = indices(&run["kept"]);
    assert_eq!(kept.iter().map(Vec::len).collect::<Vec<_>>(), ids::<usize>(&run["k"]), "{label}");
    if run["robust"] == true {
        assert_eq!(kept, wanted, "{label}");
    }
    if kept != wanted {
        return None;
    }
    assert_eq!(found.generated.prompt as u64, run["prefill_len"].as_u64().unwrap(), "{label}");
    let worst = worst(&found.generated.first_logits, logits);
    assert!(worst < 1e-3, "{label}: logits {worst}");
    Some(check_ids(&found.generated.ids, run, label))
}

#[test]
fn pruned_runs_are_those_of_the_rules() {
    on_every_backend(&Pruned);
}

/// The flat, the nested and the re-saved form of a config open the same model.
#[test]
fn every_form_of_the_config_is_read() {
    use secateur::model::{Beside, open};
    for set in SETS {
        let shape = |config: &str| {
            let folder = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(fixture(&format!("{set}/checkpoint"))).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
            std::fs::copy(fixture(&format!("{set}/checkpoint/{config}")), folder.path().join("config.json")).unwrap();
            let checkpoint = open(folder.path().to_str().unwrap(), Beside::default()).unwrap();
            let model: Model<crate::common::Cpu> = checkpoint.load(Default::default(), &Default::default()).unwrap();
            let none = selector("none", Params::default()).unwrap();
            let messages = messages(&cases()["c6_multi_turn"], &model);
            answer(&model, &messages, &none, None, decoding(4), Limits::default()).generated.first_logits
        };
        let whole = shape("config.json");
        for config in ["config.flat.json", "config.nested.json"] {
            assert!(shape(config) == whole, "{set} {config}");
        }
    }
}

/// Everything that is encoded and decoded is what transformers makes of it, special tokens among it.
#[test]
fn text_goes_to_ids_and_back() {
    use secateur::model::{Beside, open};
    for set in SETS {
        let checkpoint = open(fixture(&format!("{set}/checkpoint")).to_str().unwrap(), Beside::default()).unwrap();
        for row in read(&format!("{set}/expected/tokenizer.json"))["encode"].as_array().unwrap() {
            let text = row["text"].as_str().unwrap();
            let found = checkpoint.tokenizer.encode(text).unwrap();
            assert_eq!(found, ids::<u32>(&row["ids"]), "{set} {text:?}");
            assert_eq!(
                checkpoint.tokenizer.decode(&found),
                row["decoded_skip_special"].as_str().unwrap(),
                "{set} {text:?}"
            );
        }
    }
}

/// Checks that questions that share an image and a system's text are answered as if each were alone, also several at a time and read in parts, and that
/// FastV with a budget of all tokens drops none.
#[test]
fn positions_belong_to_prompts_and_not_to_caches() {
    let device = Default::default();
    let model: Model<crate::common::Cpu> = load(&format!("{}/checkpoint", SETS[1]), None, None, &device);
    let cases = cases();
    let all: Vec<Messages> = ["c1_single", "c3_between", "c1_single", "c7_rgba_system", "c8_video_odd", "c5_text"]
        .iter()
        .map(|id| messages(&cases[*id], &model))
        .collect();
    for (method, budget) in
        [("fastervlm", Some(Budget::Share(37.0))), ("visionzip", Some(Budget::Share(50.0))), ("none", None)]
    {
        let selector = selector(method, Params::default()).unwrap();
        let alone = |messages: &Messages| {
            answer(&model, messages, &selector, budget, decoding(8), Limits::default().without_reuse()).generated.ids
        };
        let expected: Vec<Vec<u32>> = all.iter().map(alone).collect();
        for limits in [
            Limits::default(),
            Limits { batch: 4, ..Limits::default() },
            Limits { batch: 3, step_rows: 11, ..Limits::default() },
        ] {
            let mut engine = Engine::new(&model, limits);
            let ids: Vec<_> = all
                .iter()
                .map(|messages| {
                    let media = messages.media.iter().map(|media| media.clone().into()).collect();
                    engine.submit(Request::new(media, prompt(messages, &model), &selector, budget, decoding(8)))
                })
                .collect();
            let mut found = BTreeMap::new();
            engine.run(&mut |event| {
                if let Event::Ended { id, outcome } = event {
                    found.insert(id, outcome.unwrap().generated);
                }
                std::ops::ControlFlow::Continue(())
            });
            for (id, expected) in ids.iter().zip(&expected) {
                assert_eq!(&found[id].ids, expected, "{method} with {limits:?}");
            }
            // The third question is the first again, and only its last token is read.
            if limits.batch == 1 {
                let third = &found[&ids[2]];
                assert_eq!(third.shared, third.prompt - 1, "{method}");
            }
        }
    }
    let fastv = selector("fastv", Params { fastv_layer: 1, ..Params::default() }).unwrap();
    let none = selector("none", Params::default()).unwrap();
    let logits = |selector: &Selector<_>, budget| {
        answer(&model, &all[1], selector, budget, decoding(8), Limits::default()).generated
    };
    let (whole, cut) = (logits(&none, None), logits(&fastv, Some(Budget::Share(100.0))));
    assert!(worst(&whole.first_logits, &cut.first_logits) < 1e-4);
    assert_eq!(whole.ids, cut.ids);
    let some = logits(&fastv, Some(Budget::Share(20.0)));
    assert_eq!(some.kept.as_ref().unwrap().len(), (20 * 378 + 50) / 100);
}

/// Checks that a checkpoint that was written as GGUF files keeps the same tokens and gives the same logits as with the same blocks made when it is loaded:
/// names, orders of rows, biases, windows, positions and the tokenizer are what they were.
#[test]
fn gguf_files_are_the_checkpoint_that_they_were_made_of() {
    use secateur::model::{Beside, LoadOptions, Quantise, open};
    let device = Default::default();
    for set in SETS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let own = || open(fixture(&format!("{set}/checkpoint")).to_str().unwrap(), Beside::default()).unwrap();
        let [path, mmproj] = own().write_gguf(&path, Quantise::Q8_0, |_, _, _| {}).unwrap();
        let beside = Beside { mmproj: mmproj.to_str(), ..Beside::default() };
        let options = LoadOptions { quantise: Some(Quantise::Q8_0), ..LoadOptions::default() };
        let whole: Model<crate::common::Cpu> = own().load(options, &device).unwrap();
        let pair: Model<crate::common::Cpu> =
            open(path.to_str().unwrap(), beside).unwrap().load(LoadOptions::default(), &device).unwrap();
        for (id, case) in cases() {
            let (asked, again) = (messages(&case, &whole), messages(&case, &pair));
            assert_eq!(prompt(&asked, &whole).ids, prompt(&again, &pair).ids, "{set} {id}");
            for (method, budget) in [("none", None), ("cdpruner", Some(Budget::Share(37.0)))] {
                let selector = selector(method, Params::default()).unwrap();
                let run = |model, messages| answer(model, messages, &selector, budget, decoding(8), Limits::default());
                let (one, other) = (run(&whole, &asked), run(&pair, &again));
                for (one, other) in one.visual.iter().zip(&other.visual) {
                    assert_eq!(one.keep, other.keep, "{set} {id} {method}");
                }
                let worst = worst(&one.generated.first_logits, &other.generated.first_logits);
                assert!(worst < 1e-3, "{set} {id} {method}: {worst}");
                assert_eq!(one.generated.ids, other.generated.ids, "{set} {id} {method}");
            }
        }
    }
}
