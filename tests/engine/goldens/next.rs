//! The tiny LLaVA-NeXT (1.6), stage by stage against the official code, with the same tolerances as `model.rs`.
//!
//! The order of the visual tokens is compared whole: which crop's which patch, and where rows end.

use std::{collections::BTreeMap, path::Path};

use crate::common::{
    Cpu, fixture,
    golden::{Question, compare, compares_all, dtype, load, overlap, values},
    ids, indices, json, on_every_backend, tensors, worst,
};
use secateur::{
    image::{Rgb, Tiles, decode},
    model::{Beside, LoadOptions, TilingChoice, open},
    pruner::{ClsAttention, FasterVlm, Keep, Method, Needs, NoPruning, Params, Place, methods},
    sequence::{Geometry, Merge, Visual, order},
};
use secateur_backends::{Job, VlmBackend};
use serde_json::{Value, json as object};

const ROOT: &str = "tiny-llava-1.6";
const MODEL: &str = "tiny-llava-1.6/llava-v1.6-vicuna-tiny";
const TOWER: &str = "tiny-llava-1.6/clip-vit-tiny-patch14-336";
const CASES: &str = "tiny-llava-1.6/cases.json";

#[derive(Clone)]
struct Stages;

impl Job for Stages {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let none = tensors("tiny-llava-1.6/expected/none.safetensors");
        let faster = tensors("tiny-llava-1.6/expected/fastervlm.safetensors");
        let model = load::<B>(MODEL, None, dtype::<B>(), &device);
        let cases = json(CASES);
        let cases = cases.as_array().unwrap();
        for case in &cases[..if compares_all::<B>(&device) { cases.len() } else { 1 }] {
            let id = case["id"].as_str().unwrap();
            let image = decode(&fixture(ROOT).join(case["image"].as_str().unwrap())).unwrap();
            let golden = |name: &str| &none[&format!("{id}.{name}")].values;

            let views = model.vlm().preprocess(&image.clone().into(), NoPruning::default().tiling).unwrap();
            let sampled: Vec<f32> = views
                .pixels
                .chunks(336 * 336)
                .flat_map(|plane| (0..336).step_by(16).flat_map(move |y| plane[y * 336..][..336].iter().step_by(16)))
                .copied()
                .collect();
            let found = worst(&sampled, golden("pixel_values_sub"));
            assert!(found < 1e-6, "{id} pixels: {found}");

            let features = model.encode(views, Needs::default()).unwrap().features;
            let crops = features.dims()[0];
            for crop in 0..crops {
                let own = features.clone().narrow(0, crop, 1);
                // Every 36th token, [CLS] included, which the features leave out.
                let rows: Vec<f32> = (1..17).flat_map(|i| values(own.clone().narrow(1, 36 * i - 1, 1))).collect();
                let found = worst(&rows, &golden("clip_hidden_m2_rows")[17 * 64 * crop + 64..][..16 * 64]);
                assert!(found < 1e-4, "{id} crop {crop} hidden states: {found}");
                let projected = model.project(own).unwrap();
                let rows: Vec<f32> = (0..12).flat_map(|i| values(projected.clone().narrow(1, 48 * i, 1))).collect();
                let found = worst(&rows, &golden("projector_rows")[12 * 128 * crop..][..12 * 128]);
                assert!(found < 1e-4, "{id} crop {crop} projected: {found}");
            }

            let views = model.vlm().preprocess(&image.into(), FasterVlm.card().tiling).unwrap();
            let needs = Needs { cls_attention: ClsAttention::Selected, ..Needs::default() };
            let sight = model.encode(views, needs).unwrap();
            let attention = sight.cls_attention.expect("it was asked for");
            let found = worst(&values(attention.mean_dim(2)), &faster[&format!("{id}.cls_attention")].values);
            assert!(found < 1e-6, "{id} attention: {found}");
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
        let model = load::<B>(MODEL, Some(TOWER), dtype::<B>(), &device);
        let mut compared = 0;
        for method in ["none", "fastervlm", "cdpruner"] {
            let expected = json(&format!("{ROOT}/expected/{method}.json"));
            let golden = tensors(&format!("{ROOT}/expected/{method}.safetensors"));
            for case in json(CASES).as_array().unwrap() {
                let id = case["id"].as_str().unwrap();
                for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
                    let wanted_here = compares_all::<B>(&device) || (tokens == "29" && ["n1", "n6"].contains(&id));
                    if run["robust"] == false || !wanted_here {
                        continue;
                    }
                    let label = format!("{method} {id} {tokens}");
                    let (tokens, params) = (tokens.parse().ok(), Params::default());
                    let max_new_tokens = ids::<u32>(&run["output_ids"]).len();
                    let found = Question { root: ROOT, case, method, tokens, params, max_new_tokens }.ask(&model);
                    let logits = &golden[&format!("{id}.{}.first_logits", label.rsplit(' ').next().unwrap())].values;
                    assert_eq!(compare(&found, &expected["cases"][id], run, logits, &label), Ok(()), "{label}");
                    compared += 1;
                }
            }
        }
        // 6 without pruning, 18 of FasterVLM, 17 of CDPruner; 2 of each method that prunes on GPUs.
        assert_eq!(compared, if compares_all::<B>(&device) { 41 } else { 4 });
    }
}

#[test]
fn kept_patches_logits_and_answers_are_the_official_ones() {
    on_every_backend(&Answers);
}

/// No official run of VisPruner is robust on all crops here: what is in common is shown, and bounded.
#[test]
fn vispruner_keeps_most_of_the_official_patches() {
    let model = load::<Cpu>(MODEL, None, None, &Default::default());
    let expected = json("tiny-llava-1.6/expected/vispruner.json");
    let (mut shares, mut robust_crops) = (Vec::new(), 0);
    for case in json(CASES).as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
            let (tokens, params) = (tokens.parse().ok(), Params::default());
            let question = Question { root: ROOT, case, method: "vispruner", tokens, params, max_new_tokens: 1 };
            let found = question.ask(&model);
            let wanted = indices(&run["kept"]);
            assert_eq!(found.visual_tokens, run["visual_len"].as_u64().unwrap() as usize);
            for (crop, robust) in run["robust_per_crop"].as_array().into_iter().flatten().enumerate() {
                if robust == true {
                    assert_eq!(found.kept[crop], wanted[crop], "{id} crop {crop}");
                    robust_crops += 1;
                }
            }
            shares.push(overlap(&found.kept, &wanted));
        }
    }
    eprintln!("{robust_crops} robust crops; in common: {shares:?}");
    assert!(shares.len() == 18 && shares.iter().all(|share| *share > 0.5), "{shares:?}");
    assert_eq!(robust_crops, 1);
}

/// Where every visual token of every official run came from.
#[test]
fn crops_are_put_in_the_official_order() {
    let mut compared = 0;
    for method in ["none", "fastervlm", "vispruner", "cdpruner"] {
        let expected = json(&format!("{ROOT}/expected/{method}.json"));
        for case in expected["cases"].as_object().unwrap().values() {
            let size: (usize, usize) = serde_json::from_value(case["image_size"].clone()).unwrap();
            let method = secateur::pruner::method(method, Params::default()).unwrap();
            let tiles = method.card().tiling.grid.tiles(size, &RESOLUTIONS, 336);
            assert_eq!(tiles.crops(), case["pixel_values_shape"][0].as_u64().unwrap() as usize);
            let merge = if method.card().tiling.unpad { Merge::SpatialUnpad } else { Merge::Spatial };
            for run in case["runs"].as_object().unwrap().values() {
                let kept = run.get("kept").map_or_else(|| vec![(0..576).collect(); tiles.crops()], indices);
                let budget = kept[0].len();
                let geometry = Geometry { tiles: Some(tiles), size, side: 24 };
                let found: Vec<i64> = order(&Keep::new(kept, budget), geometry, merge)
                    .iter()
                    .map(|visual| match visual {
                        Visual::Patch { crop, patch } => (crop * 576 + patch) as i64,
                        Visual::Newline => -1,
                        Visual::Blend { .. } | Visual::Class { .. } => panic!("there is no such token here"),
                    })
                    .collect();
                let key = "visual_order_flat_crop576_plus_patch_newline_minus1";
                assert_eq!(found, ids::<i64>(&run[key]), "{} {size:?}", method.name());
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 6 + 3 * 18);
}

const RESOLUTIONS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

/// DATP's official code crashes on several crops; every method works on them, and blends come after the grid.
#[test]
fn every_method_works_on_crops() {
    let model = load::<Cpu>(MODEL, Some(TOWER), None, &Default::default());
    let case = &json(CASES)[0];
    for method in methods(Params::default()) {
        let (tokens, params) = (Some(7), Params::default());
        let question = Question { root: ROOT, case, method: method.name(), tokens, params, max_new_tokens: 2 };
        let found = question.ask(&model);
        let grid = if method.card().tiling.grid.name() == "llava" { 3 } else { found.kept.len() };
        assert_eq!(found.kept.len(), grid, "{}", method.name());
        match method.card().place {
            Place::Nowhere => assert_eq!(found.visual_tokens, 776),
            // Spent on all crops together, newlines among them.
            Place::Llm => assert_eq!(found.visual_tokens, 21),
            Place::Tower => {
                let extra = usize::from(method.name() == "trim");
                assert_eq!(found.visual_tokens, grid * (7 + extra), "{}", method.name());
                assert!(found.kept.iter().all(|crop| crop.len() == 7), "{}", method.name());
            }
        }
    }
}

#[test]
fn grid_and_merge_can_be_chosen() {
    let opened = open(fixture(MODEL).to_str().unwrap(), Beside::default()).unwrap();
    let tiling = TilingChoice { grid: Some(secateur::image::GridRule::TwoByTwo), merge: Some(Merge::SpatialUnpad) };
    let options = LoadOptions { tiling, ..LoadOptions::default() };
    let model = opened.load::<Cpu>(options, &Default::default()).unwrap();
    let image = Rgb { width: 300, height: 100, data: vec![0; 90_000] };
    let placement = model.vlm().preprocess(&image.into(), FasterVlm.card().tiling).unwrap().placement;
    assert_eq!((placement.tiles, placement.merge), (Some(Tiles { columns: 2, rows: 2 }), Merge::SpatialUnpad));
    // 300×100 fills 48×16 of the grid's 48×48 patches; pruned, the rows keep their newlines.
    let (params, case) = (Params::default(), &json(CASES)[0]);
    let ask = |method, tokens| Question { root: ROOT, case, method, tokens, params, max_new_tokens: 1 }.ask(&model);
    assert_eq!(ask("none", None).visual_tokens, 576 + 49 * 16);
    let pruned = ask("grid", Some(29));
    assert!(pruned.kept.iter().all(|crop| crop.len() == 29));
    // Two thirds of the tiles are padding, and what was kept there is not read.
    assert!((29 + 16..29 + 16 + 2 * 29).contains(&pruned.visual_tokens), "{}", pruned.visual_tokens);
}

/// The same weights under llava-hf's names give the same answers, newlines and the tower's own weights included.
#[test]
fn the_transformers_layout_answers_the_same() {
    let folder = tempfile::tempdir().unwrap();
    write_hf_layout(folder.path());
    let hf = open(
        folder.path().to_str().unwrap(),
        Beside { clip: Some(fixture(TOWER).to_str().unwrap()), ..Beside::default() },
    )
    .unwrap();
    let options = LoadOptions { joint: true, ..LoadOptions::default() };
    let hf = hf.load::<Cpu>(options, &Default::default()).unwrap();
    let original = load::<Cpu>(MODEL, Some(TOWER), None, &Default::default());
    for method in ["none", "fastervlm", "cdpruner"] {
        for case in &json(CASES).as_array().unwrap()[..3] {
            let (tokens, params) = (Some(29), Params::default());
            let question = Question { root: ROOT, case, method, tokens, params, max_new_tokens: 8 };
            let (one, other) = (question.ask(&original), question.ask(&hf));
            assert_eq!((one.kept, one.ids), (other.kept, other.ids), "{method} {}", case["id"]);
            assert_eq!(one.logits, other.logits);
        }
    }
}

fn write_hf_layout(folder: &Path) {
    let config = json("tiny-llava-1.6/llava-v1.6-vicuna-tiny/config.json");
    let mut text: BTreeMap<String, Value> = BTreeMap::new();
    for field in ["hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "vocab_size"] {
        text.insert(field.to_owned(), config[field].clone());
    }
    text.insert("rms_norm_eps".to_owned(), config["rms_norm_eps"].clone());
    text.insert("max_position_embeddings".to_owned(), config["max_position_embeddings"].clone());
    let hf = object!({
        "model_type": "llava_next",
        "image_grid_pinpoints": config["image_grid_pinpoints"],
        "text_config": text,
        "vision_config": json("tiny-llava-1.6/clip-vit-tiny-patch14-336/config.json")["vision_config"],
    });
    std::fs::write(folder.join("config.json"), hf.to_string()).unwrap();
    let copies = [(TOWER, "preprocessor_config.json"), (MODEL, "tokenizer.model"), (MODEL, "tokenizer_config.json")];
    for (from, name) in copies {
        std::fs::copy(fixture(from).join(name), folder.join(name)).unwrap();
    }
    let names = [
        ("model.vision_tower.vision_tower.", "vision_tower."),
        ("model.mm_projector.0.", "multi_modal_projector.linear_1."),
        ("model.mm_projector.2.", "multi_modal_projector.linear_2."),
        ("model.image_newline", "image_newline"),
        ("model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
    ];
    for shard in 1..=3 {
        let name = format!("model-0000{shard}-of-00003.safetensors");
        let bytes = std::fs::read(fixture(MODEL).join(&name)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let renamed = file.iter().map(|(name, view)| {
            let new = names.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")));
            (new.unwrap(), view)
        });
        safetensors::serialize_to_file(renamed.collect::<Vec<_>>(), None, &folder.join(&name)).unwrap();
    }
    let index = json("tiny-llava-1.6/llava-v1.6-vicuna-tiny/model.safetensors.index.json");
    let map: BTreeMap<String, Value> = index["weight_map"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, file)| {
            let new = names.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")));
            (new.unwrap(), file.clone())
        })
        .collect();
    std::fs::write(folder.join("model.safetensors.index.json"), object!({ "weight_map": map }).to_string()).unwrap();
}
