//! FasterVLM, VisPruner and DATP on fixed cues: the official code's choice, wherever rounding does not change it.

use crate::common::{
    Cpu,
    cues::{cues, pruner, tensor},
    indices, json, on_every_backend, tensors,
};
use burn::tensor::{Tensor, TensorData};
use secateur::pruner::{ClsAttention, Cues, Needs, Params};
use secateur_backends::{Job, VlmBackend};

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
                let pruner = pruner::<B>("vispruner", Params { important_ratio, ..Params::default() }).unwrap();
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
        let cues = cues::<Cpu>(
            Needs { cls_attention: ClsAttention::Selected, features: true, ..Needs::default() },
            2,
            patches,
            &Default::default(),
        );
        for &important_ratio in ratios {
            let pruner = pruner::<Cpu>("vispruner", Params { important_ratio, ..Params::default() }).unwrap();
            for budget in 1..=patches {
                let keep = pruner.keep(&cues, budget).unwrap();
                assert_eq!(keep.indices().len(), 2);
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
            // What the official code takes for the text: all that follows position 35 and the image.
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
    let mut cues = cues::<Cpu>(pruner::<Cpu>("datp", Params::default()).unwrap().card().needs, 1, 64, &device);
    let pruner = pruner::<Cpu>("datp", Params::default()).unwrap();
    cues.prompt_embeds = Some(None);
    let [layers, _, heads, patches] = cues.cls_attention.clone().unwrap().dims();
    let rows: Vec<f32> = cues.cls_attention.clone().unwrap().into_data().to_vec().unwrap();
    let score = |patch: usize| -> f64 {
        let layer = |layer: usize| -> f64 {
            let heads = (0..heads).map(|head| f64::from(rows[(layer * heads + head) * patches + patch]));
            (0.5 + 0.5 * layer as f64 / (layers - 1) as f64) * heads.sum::<f64>()
        };
        (0..layers).map(layer).sum()
    };
    let mut wanted: Vec<usize> = (0..patches).collect();
    wanted.sort_by(|&a, &b| score(b).total_cmp(&score(a)));
    wanted.truncate(9);
    wanted.sort_unstable();
    assert_eq!(pruner.keep(&cues, 9).unwrap().indices(), [wanted]);
    cues.prompt_embeds = None;
    let error = pruner.keep(&cues, 9).unwrap_err().to_string();
    assert!(error.contains("`prompt_embeds` [text, hidden]"), "{error}");
}
