//! The tiny Video-LLaVA, stage by stage against the official code and FasterVLM's branch for it, on every backend compiled in.
//!
//! | stage | tolerance |
//! |---|---|
//! | frame numbers, prompt ids, kept patches | exact |
//! | pixels of frames (bilinear) and of images (bicubic), both without antialias | 1e-6 and 5e-6 |
//! | towers' hidden states (values up to about 9) | 1e-4 |
//! | \[CLS\] attention of the kept frames, mean over heads | 1e-6 |
//! | projected features | 1e-4 |
//! | first logits | 1e-3 |
//! | greedy ids | exact up to the first step whose recorded gap is under 1e-3 |

use std::{ops::ControlFlow, path::PathBuf};

use crate::common::{
    fixture,
    golden::{compares_all, dtype, is_brief, load, values},
    ids, indices, json, on_every_backend, tensors, worst,
};
use burn::tensor::Tensor;
use secateur::{
    engine::{Decoding, answer, kept},
    image::{Aspect, ClipProcessor, decode},
    model::Model,
    pruner::{ClsAttention, Needs, NoPruning, Params, selector},
    text::{Prompt, clip_question},
    video::{FrameRule, Media, Video, frame_numbers},
};
use secateur_backends::{Job, VlmBackend};
use serde_json::Value;

const MODEL: &str = "tiny-video-llava/Video-LLaVA-tiny";

/// The frames of the clip are those that decord gave: decoders differ.
fn source(case: &Value) -> Media {
    let video = |folder: &str| Media::Video(Video::read(&path(folder), FrameRule::Count(8)).unwrap());
    match case["source"].as_str().unwrap() {
        "frames" => video("frames"),
        "mp4" => video("decoded"),
        _ => decode(&path("frames/frame_010.png")).unwrap().into(),
    }
}

fn path(name: &str) -> PathBuf {
    fixture("tiny-video-llava/video").join(name)
}

/// Every `step`th pixel of every `step`th row of planes of 224 × 224.
fn sampled(planes: &[f32], step: usize) -> Vec<f32> {
    let rows = planes.chunks(224).enumerate().filter(|(row, _)| (row % 224).is_multiple_of(step));
    rows.flat_map(|(_, row)| row.iter().step_by(step).copied()).collect()
}

#[test]
fn frames_are_the_official_ones() {
    let expected = json("tiny-video-llava/expected/fastervlm.json");
    for (count, numbers) in expected["linspace_examples"].as_object().unwrap() {
        assert_eq!(frame_numbers(count.parse().unwrap(), 8), ids::<usize>(numbers), "{count} frames");
    }
    let video = Video::read(&path("frames"), FrameRule::Count(8)).unwrap();
    assert_eq!(video.numbers, ids::<usize>(&expected["frame_indices_frames"]));
}

#[test]
fn pixels_are_the_official_ones() {
    let processor = ClipProcessor::languagebind(224);
    let expected = tensors("tiny-video-llava/expected/none.safetensors");
    for (name, folder) in [("frames", "frames"), ("mp4", "decoded")] {
        let video = Video::read(&path(folder), FrameRule::Count(8)).unwrap();
        let frames: Vec<Vec<f32>> = video.frames.iter().map(|frame| processor.frame_pixels(frame)).collect();
        // The official order is channels, then frames.
        let plane = 224 * 224;
        let found: Vec<f32> = (0..3)
            .flat_map(|c| frames.iter().flat_map(move |frame| sampled(&frame[c * plane..][..plane], 8)))
            .collect();
        let found = worst(&found, &expected[&format!("pixel_values.{name}.sub8")].values);
        assert!(found < 1e-6, "{name}: {found}");
        if name == "frames" {
            let found = worst(&sampled(&frames[3], 3), &expected["pixel_values.frames.frame3_sub3"].values);
            assert!(found < 1e-6, "frame 3: {found}");
        }
    }
    let image = decode(&path("frames/frame_010.png")).unwrap();
    let found = worst(&sampled(&processor.pixels(&image, Aspect::Pad), 8), &expected["pixel_values.image.sub8"].values);
    assert!(found < 5e-6, "image: {found}");
}

#[derive(Clone)]
struct Stages;

impl Job for Stages {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let none = tensors("tiny-video-llava/expected/none.safetensors");
        let faster = tensors("tiny-video-llava/expected/fastervlm.safetensors");
        let expected = json("tiny-video-llava/expected/fastervlm.json");
        let model: Model<B> = load(MODEL, None, dtype::<B>(), &device);
        let needs = Needs { cls_attention: ClsAttention::Selected, ..Needs::default() };
        for (id, case) in expected["cases"].as_object().unwrap() {
            let golden = |name: &str| &none[&format!("{id}.{name}")].values;
            let media = source(case);
            let views = model.vlm().preprocess(&media, NoPruning::default().tiling).unwrap();
            let sight = model.encode(views, needs).unwrap();
            match media {
                Media::Video(_) => {}
                Media::Image(_) => {
                    let projected = model.project(sight.features).unwrap();
                    let rows: Vec<f32> = (0..8).flat_map(|i| values(projected.clone().narrow(1, 32 * i, 1))).collect();
                    let found = worst(&rows, golden("projector_rows"));
                    assert!(found < 1e-4, "{id} projector: {found}");
                    continue;
                }
            }
            let all = Tensor::cat(vec![sight.class.unwrap(), sight.features], 1);
            // Channels 0 and 32 of every token, [CLS] first.
            let channels = Tensor::cat(vec![all.clone().narrow(2, 0, 1), all.clone().narrow(2, 32, 1)], 2);
            let found = worst(&values(channels), golden("video_features_rows"));
            assert!(found < 1e-4, "{id} features: {found}");
            // Every 32nd token.
            let rows = (0..9).map(|i| all.clone().narrow(1, 32 * i, 1)).collect();
            let found = worst(&values(model.project(Tensor::cat(rows, 1)).unwrap()), golden("projector_rows"));
            assert!(found < 1e-4, "{id} projector: {found}");
            let attention = values(sight.cls_attention.expect("it was asked for").mean_dim(2));
            let found = worst(&attention, &faster[&format!("{id}.cls_attention_mean_TN")].values);
            assert!(found < 1e-6, "{id} attention: {found}");
        }
    }
}

#[test]
fn towers_and_projector_are_the_official_ones() {
    on_every_backend(&Stages);
}

#[derive(Clone)]
struct Answers {
    method: &'static str,
}

impl Job for Answers {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let expected = json(&format!("tiny-video-llava/expected/{}.json", self.method));
        let logits = tensors(&format!("tiny-video-llava/expected/{}.safetensors", self.method));
        let model: Model<B> = load(MODEL, None, dtype::<B>(), &device);
        let mut compared = 0;
        for (id, case) in expected["cases"].as_object().unwrap() {
            let before = compared;
            for (tokens, run) in case["runs"].as_object().unwrap() {
                let label = format!("{} {id} {tokens}", self.method);
                let budget: Option<usize> = tokens.parse().ok();
                // On a software renderer, the shortest prompts.
                let enough = is_brief::<B>(&device) && compared > before;
                if enough || !compares_all::<B>(&device) && budget.is_none_or(|budget| budget > 64) {
                    continue;
                }
                let media = source(case);
                let question = case["question"].as_str().unwrap();
                let text = model.chat().render(question, &[media.placeholders(model.frames())]).unwrap();
                let prompt = Prompt::new(&text, &clip_question(question), model.tokenizer()).unwrap();
                assert_eq!(prompt.ids, ids::<i64>(&case["input_ids"]), "{label}");
                let method = if budget.is_some() { self.method } else { "none" };
                let selector = selector::<B>(method, Params::default()).unwrap();
                let wanted: Vec<u32> = ids(&run["output_ids"]);
                let decoding = Decoding::greedy(16);
                let go_on = |_: &[u32]| ControlFlow::Continue(());
                let (seen, answer) =
                    answer(&model, &[media], &prompt, &selector, budget.map(Into::into), decoding, go_on).unwrap();
                assert_eq!(answer.prompt as u64, run["prefill_len"].as_u64().unwrap(), "{label}");
                if let Some(patches) = run.get("kept") {
                    assert_eq!(kept(&seen, &answer).0, indices(patches), "{label}");
                }
                let found = worst(&answer.first_logits, &logits[&format!("{id}.{tokens}.first_logits")].values);
                assert!(found < 1e-3, "{label} logits: {found}");
                let gaps: Vec<f64> = ids(&run["top1_top2_logit_gap_per_step"]);
                let wanted: Vec<u32> = wanted.into_iter().take_while(|&id| id != 2).collect();
                let sure = gaps.iter().position(|&gap| gap < 1e-3).unwrap_or(wanted.len()).min(wanted.len());
                assert_eq!(answer.ids[..sure], wanted[..sure], "{label}");
                compared += 1;
            }
        }
        let wanted = match (self.method, compares_all::<B>(&device), is_brief::<B>(&device)) {
            ("fastervlm", true, _) => 13,
            ("fastervlm", _, true) => 3,
            ("fastervlm", ..) => 6,
            (_, true, _) => 4,
            _ => 0,
        };
        assert_eq!(compared, wanted, "{}", self.method);
    }
}

#[test]
fn fastervlm_keeps_and_answers_as_its_official_branch() {
    on_every_backend(&Answers { method: "fastervlm" });
}

#[test]
fn without_pruning_it_answers_as_video_llava() {
    on_every_backend(&Answers { method: "none" });
}
