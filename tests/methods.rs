//! What every method promises, for every row of the registry, and the official output of each.

mod common;

use burn::tensor::{Tensor, TensorData};
use common::{Golden, indices, json, on_every_backend, tensors};
use proptest::prelude::*;
use secateur::{
    Error,
    pruner::{ClsAttention, Cues, Needs, Params, methods, pruner, top_k},
};
use secateur_backends::{Flex, Job, VlmBackend};

/// Attention and features that look random, without ties.
fn cues<B: VlmBackend>(needs: Needs, crops: usize, patches: usize, device: &B::Device) -> Cues<B> {
    let noise = |shape: [usize; 4], salt: usize| {
        let count: usize = shape.iter().product();
        let values: Vec<f32> = (0..count).map(|i| ((i + salt) * 7919 % 104_729) as f32 / 104_729.0).collect();
        Tensor::<B, 4>::from_data(TensorData::new(values, shape), device)
    };
    Cues {
        features: Some(noise([1, crops, patches, 8], 1).reshape([crops, patches, 8])),
        // Exactly what is declared: a method that reads more fails here.
        cls_attention: match needs.cls_attention {
            ClsAttention::None => None,
            ClsAttention::Selected => Some(noise([1, crops, 4, patches], 2)),
            ClsAttention::All => Some(noise([6, crops, 4, patches], 2)),
        },
        projected: needs.projected.then(|| noise([1, crops, patches, 12], 3).reshape([crops, patches, 12])),
        prompt_embeds: needs.prompt_embeds.then(|| Some(noise([1, 1, 7, 12], 4).reshape([7, 12]))),
    }
}

#[derive(Clone)]
struct Contract;

impl Job for Contract {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        for method in methods() {
            let pruner = pruner::<B>(method.name(), Params::default()).unwrap();
            for (crops, patches) in [(1, 576), (5, 576), (1, 256), (8, 256), (1, 1)] {
                let cues = cues::<B>(method.needs(), crops, patches, &device);
                for budget in [1, 29, patches - 1, patches] {
                    if budget == 0 || budget > patches {
                        continue;
                    }
                    let label = format!("{} {crops}×{patches} → {budget}", method.name());
                    let keep = pruner.keep(&cues, budget).unwrap();
                    let expected = if method.name() == "none" { patches } else { budget };
                    assert_eq!(keep.indices().len(), crops, "{label}");
                    for crop in keep.indices() {
                        assert_eq!(crop.len(), expected, "{label}");
                        assert!(crop.windows(2).all(|pair| pair[0] < pair[1]), "{label}: not ascending");
                        assert!(crop.iter().all(|&patch| patch < patches), "{label}: out of range");
                    }
                    assert_eq!(keep, pruner.keep(&cues, budget).unwrap(), "{label}: not deterministic");
                }
                for budget in [0, patches + 1] {
                    let refused = pruner.keep(&cues, budget);
                    assert!(matches!(refused, Err(Error::Budget { .. })), "{} takes {budget}", method.name());
                }
            }
        }
    }
}

#[test]
fn every_method_keeps_its_contract_on_every_backend() {
    on_every_backend(&Contract);
}

#[test]
fn the_registry_is_sound() {
    let all = methods();
    assert_eq!(all[0].name(), "none", "the baseline is the first row");
    for (i, method) in all.iter().enumerate() {
        assert!(!method.idea().is_empty(), "{} has no idea", method.name());
        assert!(method.name() == "none" || method.paper().starts_with("https://"), "{} has no paper", method.name());
        assert!(all[..i].iter().all(|other| other.name() != method.name()), "{} is there twice", method.name());
    }
    let unknown = pruner::<Flex>("fastvlm", Params::default()).err().unwrap().to_string();
    assert!(unknown.contains("fastvlm") && unknown.contains("fastervlm"), "{unknown}");
}

#[test]
fn a_missing_cue_is_named() {
    let error =
        pruner::<Flex>("fastervlm", Params::default()).unwrap().keep(&Cues::default(), 1).unwrap_err().to_string();
    assert!(error.contains("`cls_attention` [layers, crops, heads, patches]"), "{error}");
}

#[test]
fn fastervlm_takes_one_layer_only() {
    let attention = Tensor::<Flex, 4>::zeros([5, 1, 2, 9], &Default::default());
    let cues = Cues { cls_attention: Some(attention), ..Cues::default() };
    let error = pruner::<Flex>("fastervlm", Params::default()).unwrap().keep(&cues, 3).unwrap_err().to_string();
    assert!(error.contains("1 layer") && error.contains("there are 5"), "{error}");
}

#[derive(Clone)]
struct FasterVlmGoldens;

impl Job for FasterVlmGoldens {
    type Output = usize;

    fn run<B: VlmBackend>(self, device: B::Device) -> usize {
        let pruner = pruner::<B>("fastervlm", Params::default()).unwrap();
        let mut compared = 0;
        for (name, case) in json("pruners/fastervlm/expected.json")["cases"].as_object().unwrap() {
            let inputs = tensors(&format!("pruners/attention/{name}.safetensors"));
            let attention = &inputs["cls_attentions"];
            let [crops, heads, patches] = attention.shape[..] else { panic!("{name}") };
            let data = TensorData::new(attention.values.clone(), [1, crops, heads, patches]);
            let cues = Cues { cls_attention: Some(Tensor::<B, 4>::from_data(data, &device)), ..Cues::default() };
            for run in case["runs"].as_array().unwrap().iter().filter(|run| run["robust"] == true) {
                let budget = run["visual_token_num"].as_u64().unwrap() as usize;
                let keep = pruner.keep(&cues, budget).unwrap();
                assert_eq!(keep.indices(), indices(&run["kept"]), "{name} {budget}");
                compared += 1;
            }
        }
        compared
    }
}

#[test]
fn fastervlm_keeps_the_official_patches() {
    for compared in on_every_backend(&FasterVlmGoldens) {
        assert!(compared >= 40, "only {compared} runs were compared");
    }
}

/// A golden tensor with one dimension more in front, or some other shape of the same size.
fn tensor<B: VlmBackend, const D: usize>(golden: &Golden, shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(golden.values.clone(), shape), device)
}

#[derive(Clone)]
struct VisPrunerGoldens;

impl Job for VisPrunerGoldens {
    type Output = [usize; 2];

    /// Runs compared, and runs in which the official code crashes.
    fn run<B: VlmBackend>(self, device: B::Device) -> [usize; 2] {
        let (mut compared, mut crashes) = (0, 0);
        for (name, case) in json("pruners/vispruner/expected.json")["cases"].as_object().unwrap() {
            let inputs = tensors(&format!("pruners/attention/{name}.safetensors"));
            let (attention, features) = (&inputs["cls_attentions"], &inputs["image_features"]);
            let [crops, heads, patches] = attention.shape[..] else { panic!("{name}") };
            let cues = Cues {
                features: Some(tensor::<B, 3>(features, [crops, patches, features.shape[2]], &device)),
                cls_attention: Some(tensor(attention, [1, crops, heads, patches], &device)),
                ..Cues::default()
            };
            for run in case["runs"].as_array().unwrap() {
                let budget = run["visual_token_num"].as_u64().unwrap() as usize;
                let important_ratio = run["important_ratio"].as_f64().unwrap();
                let pruner = pruner::<B>("vispruner", Params { important_ratio }).unwrap();
                let label = format!("{name} {budget} ratio {important_ratio}");
                let keep = pruner.keep(&cues, budget).unwrap();
                for kept in keep.indices() {
                    assert_eq!(kept.len(), budget, "{label}");
                    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept[budget - 1] < patches, "{label}");
                }
                // Features of length zero make the official similarities NaN, whose order means nothing.
                let means_something = name != "adv_zero_features" || budget == patches;
                if run["robust"] == true && means_something {
                    assert_eq!(keep.indices(), indices(&run["kept"]), "{label}");
                    compared += 1;
                }
                crashes += usize::from(run.get("error").is_some());
            }
        }
        [compared, crashes]
    }
}

#[test]
fn vispruner_keeps_the_official_patches_and_works_where_the_official_code_crashes() {
    for [compared, crashes] in on_every_backend(&VisPrunerGoldens) {
        assert!(compared >= 40, "only {compared} runs were compared");
        assert!(crashes >= 20, "only {crashes} crashes were tried");
    }
}

/// Every budget of a small and a large grid, with odd rests and tiny shares.
#[test]
fn vispruner_takes_every_budget() {
    for (patches, ratios) in [(49, &[0.0, 0.25, 0.5, 0.75, 1.0][..]), (256, &[0.5])] {
        let cues = cues::<Flex>(
            Needs { cls_attention: ClsAttention::Selected, ..Needs::default() },
            2,
            patches,
            &Default::default(),
        );
        for &important_ratio in ratios {
            let pruner = pruner::<Flex>("vispruner", Params { important_ratio }).unwrap();
            for budget in 1..=patches {
                let keep = pruner.keep(&cues, budget).unwrap();
                assert!(keep.indices().iter().all(|kept| kept.len() == budget), "{patches} {important_ratio} {budget}");
            }
        }
    }
}

#[derive(Clone)]
struct DatpGoldens;

impl Job for DatpGoldens {
    type Output = usize;

    fn run<B: VlmBackend>(self, device: B::Device) -> usize {
        let pruner = pruner::<B>("datp", Params::default()).unwrap();
        let mut compared = 0;
        for (name, case) in json("pruners/datp/expected.json")["cases"].as_object().unwrap() {
            let inputs = tensors(&format!("pruners/datp/inputs_{name}.safetensors"));
            let (attention, features, embeds) =
                (&inputs["cls_attentions_LBHN"], &inputs["image_features"], &inputs["new_input_embeds"]);
            let [layers, crops, heads, patches] = attention.shape[..] else { panic!("{name}") };
            let (sequence, width) = (embeds.shape[1], embeds.shape[2]);
            // What the official code takes for the text: all that follows position 35 and the picture.
            let text = sequence.saturating_sub(35 + patches);
            let attention = tensor::<B, 4>(attention, [layers, crops, heads, patches], &device);
            let features = tensor::<B, 3>(features, [crops, patches, width], &device);
            let embeds = tensor::<B, 3>(embeds, [crops, sequence, width], &device);
            for run in case["runs"].as_array().unwrap().iter().filter(|run| run["robust"] == true) {
                let budget = run["effective_token_num"].as_u64().unwrap() as usize;
                // Every sequence of the batch has a text of its own.
                let kept: Vec<Vec<usize>> = (0..crops)
                    .map(|crop| {
                        let rows = embeds.clone().narrow(0, crop, 1).narrow(1, sequence - text, text);
                        let cues = Cues {
                            projected: Some(features.clone().narrow(0, crop, 1)),
                            cls_attention: Some(attention.clone().narrow(1, crop, 1)),
                            prompt_embeds: Some(Some(rows.reshape([text, width]))),
                            ..Cues::default()
                        };
                        pruner.keep(&cues, budget).unwrap().indices()[0].clone()
                    })
                    .collect();
                assert_eq!(kept, indices(&run["kept"]), "{name} {budget}");
                compared += 1;
            }
        }
        compared
    }
}

#[test]
fn datp_keeps_the_official_patches() {
    for compared in on_every_backend(&DatpGoldens) {
        assert!(compared >= 30, "only {compared} runs were compared");
    }
}

#[test]
fn datp_without_text_goes_by_attention() {
    let device = Default::default();
    let mut cues =
        cues::<Flex>(Needs { cls_attention: ClsAttention::All, projected: true, prompt_embeds: true }, 1, 64, &device);
    let pruner = pruner::<Flex>("datp", Params::default()).unwrap();
    cues.prompt_embeds = Some(None);
    assert_eq!(pruner.keep(&cues, 9).unwrap().budget(), 9);
    cues.prompt_embeds = None;
    let error = pruner.keep(&cues, 9).unwrap_err().to_string();
    assert!(error.contains("`prompt_embeds` [text, hidden]"), "{error}");
}

#[test]
fn ties_go_to_the_first_patch_and_nan_ranks_last() {
    let device = Default::default();
    let zeros = Tensor::<Flex, 2>::from_floats([[-0.0, 0.0, -0.0]], &device);
    assert_eq!(top_k(zeros, 1).unwrap().indices(), [vec![0]]);
    let score = Tensor::<Flex, 2>::from_floats([[0.5, f32::NAN, 0.5, 0.7, 0.5]], &device);
    assert_eq!(top_k(score.clone(), 3).unwrap().indices(), [vec![0, 2, 3]]);
    assert_eq!(top_k(score, 5).unwrap().indices(), [vec![0, 1, 2, 3, 4]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What is kept scores at least as high as what is dropped.
    #[test]
    fn top_k_keeps_the_best(scores in prop::collection::vec(-1.0f32..1.0, 1..200), share in 0.0f64..1.0) {
        let budget = ((scores.len() as f64 * share) as usize).max(1);
        let tensor = Tensor::<Flex, 2>::from_data(TensorData::new(scores.clone(), [1, scores.len()]), &Default::default());
        let keep = top_k(tensor, budget).unwrap();
        let kept = &keep.indices()[0];
        prop_assert_eq!(kept.len(), budget);
        let worst_kept = kept.iter().map(|&i| scores[i]).fold(f32::INFINITY, f32::min);
        let dropped = (0..scores.len()).filter(|i| !kept.contains(i));
        prop_assert!(dropped.map(|i| scores[i]).all(|score| score <= worst_kept));
    }
}
