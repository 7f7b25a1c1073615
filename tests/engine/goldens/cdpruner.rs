//! CDPruner on fixed cues, and the determinantal point process under it.

use crate::common::{
    Cpu,
    cues::{pruner, tensor},
    golden::{is_brief, is_wgpu},
    indices, json, on_every_backend, tensors,
};
use burn::tensor::{Int, Tensor, TensorData, activation};
use secateur::pruner::{Cues, Params};
use secateur_backends::{Job, VlmBackend, dpp};

#[derive(Clone)]
struct CdPrunerGoldens;

impl Job for CdPrunerGoldens {
    type Output = ();

    /// On wgpu only budgets that its software renderer reaches soon: a token is a step of many launches.
    fn run<B: VlmBackend>(self, device: B::Device) {
        let pruner = pruner::<B>("cdpruner", Params::default()).unwrap();
        let wgpu = is_wgpu::<B>(&device);
        // Runs compared, and runs in which the official code computes with NaN.
        let (mut compared, mut degenerate) = (0, 0);
        for (name, case) in json("pruners/cdpruner/expected.json")["cases"].as_object().unwrap() {
            let cues = cdpruner_cues::<B>(name, &device);
            let patches = case["N"].as_u64().unwrap() as usize;
            for run in case["runs"].as_array().unwrap() {
                let budget = run["visual_token_num"].as_u64().unwrap() as usize;
                let large = if is_brief::<B>(&device) && name != "b1_m1" { budget > 16 } else { budget > 32 };
                if wgpu && large {
                    continue;
                }
                let keep = pruner.keep(&cues, budget).unwrap();
                let label = format!("{name} {budget}");
                for kept in keep.indices() {
                    assert_eq!(kept.len(), budget, "{label}");
                    assert!(kept.windows(2).all(|pair| pair[0] < pair[1]) && kept[budget - 1] < patches, "{label}");
                }
                if run["nan_seen"] == true {
                    degenerate += 1;
                } else if run["robust"] == true {
                    assert_eq!(keep.indices(), indices(&run["kept"]), "{label}");
                    compared += 1;
                }
            }
        }
        let least = match (is_brief::<B>(&device), wgpu) {
            (true, _) => [7, 12],
            (_, true) => [9, 14],
            _ => [19, 20],
        };
        assert!(compared >= least[0], "only {compared} runs were compared");
        assert!(degenerate >= least[1], "only {degenerate} degenerate runs were tried");
    }
}

/// The inputs of a case; `b1_m2` is `b1_m1` with another text, and `b5_m1` comes with its projector.
fn cdpruner_cues<B: VlmBackend>(name: &str, device: &B::Device) -> Cues<B> {
    let mut inputs = tensors(&format!("pruners/cdpruner/inputs_{name}.safetensors"));
    if name == "b1_m2" {
        let text = inputs.remove("text_embeds").unwrap();
        inputs = tensors("pruners/cdpruner/inputs_b1_m1.safetensors");
        inputs.insert("text_embeds".to_owned(), text);
    }
    let three = |name: &str| {
        let golden = &inputs[name];
        tensor::<B, 3>(golden, [golden.shape[0], golden.shape[1], golden.shape[2]], device)
    };
    let two = |name: &str| tensor::<B, 2>(&inputs[name], [inputs[name].shape[0], inputs[name].shape[1]], device);
    let mut projected = three("image_features");
    if inputs.contains_key("projector.0.weight") {
        let layer = |x: Tensor<B, 3>, i: usize| {
            let bias = &inputs[&format!("projector.{i}.bias")];
            let bias = tensor::<B, 1>(bias, [bias.shape[0]], device);
            x.matmul(two(&format!("projector.{i}.weight")).transpose().unsqueeze()) + bias.unsqueeze()
        };
        projected = layer(activation::gelu(layer(projected, 0)), 2);
    }
    Cues {
        projected: Some(projected),
        image_embeds: Some(three("image_embeds")),
        text_embeds: Some(two("text_embeds")),
        ..Cues::default()
    }
}

#[test]
fn cdpruner_keeps_the_official_patches_and_the_budget_where_the_official_code_loses_count() {
    on_every_backend(&CdPrunerGoldens);
}

/// Relevance is scaled over all crops together: a crop alone keeps other patches than among four others.
#[test]
fn cdpruner_sees_all_crops_together() {
    let device = Default::default();
    let pruner = pruner::<Cpu>("cdpruner", Params::default()).unwrap();
    let together = cdpruner_cues::<Cpu>("b5_m1", &device);
    let alone = &json("pruners/cdpruner/expected.json")["b5_m1_each_image_alone"];
    let (mut compared, mut moved) = (0, 0);
    for (crop, runs) in alone.as_array().unwrap().iter().enumerate() {
        let cues = Cues {
            projected: together.projected.clone().map(|x| x.narrow(0, crop, 1)),
            image_embeds: together.image_embeds.clone().map(|x| x.narrow(0, crop, 1)),
            text_embeds: together.text_embeds.clone(),
            ..Cues::default()
        };
        // At 192 tokens rounding decides.
        for run in runs.as_array().unwrap().iter().filter(|run| run["visual_token_num"] != 192) {
            let budget = run["visual_token_num"].as_u64().unwrap() as usize;
            let wanted: Vec<usize> = serde_json::from_value(run["kept"].clone()).unwrap();
            let found = pruner.keep(&cues, budget).unwrap();
            assert_eq!(found.indices(), [wanted], "crop {crop}, {budget}");
            let same = pruner.keep(&together, budget).unwrap().indices()[crop] == found.indices()[0];
            assert_eq!(same, run["same_set_as_in_batch"] == true, "crop {crop}, {budget}");
            compared += 1;
            moved += usize::from(!same);
        }
    }
    assert!(compared >= 10 && moved >= 5, "{compared} crops were compared, {moved} of them keep other patches");
}

/// With theta near 0 the question does not count; the choice moves as theta grows.
#[test]
fn theta_says_how_much_the_question_counts() {
    let device = Default::default();
    let cues = cdpruner_cues::<Cpu>("b1_m1", &device);
    let keep =
        |theta| pruner::<Cpu>("cdpruner", Params { theta, ..Params::default() }).unwrap().keep(&cues, 32).unwrap();
    let mut other_question = cues.clone();
    other_question.text_embeds = cdpruner_cues::<Cpu>("b1_m2", &device).text_embeds;
    let deaf = pruner::<Cpu>("cdpruner", Params { theta: Some(0.0), ..Params::default() }).unwrap();
    assert_eq!(deaf.keep(&cues, 32).unwrap(), deaf.keep(&other_question, 32).unwrap());
    assert_ne!(keep(Some(0.0)), keep(Some(0.9)));
}

#[derive(Clone)]
struct DppBodies;

impl Job for DppBodies {
    type Output = ();

    /// A backend's own body chooses what the reference body chooses, in the same order.
    fn run<B: VlmBackend>(self, device: B::Device) {
        for name in ["b1_m1", "b5_m1", "adv_natural_small", "adv_rank_deficient_D8"] {
            let vectors = cdpruner_cues::<B>(name, &device).projected.unwrap();
            // Beyond the rank, rounding decides.
            let budget = if name == "adv_rank_deficient_D8" { 8 } else { 48 };
            let order = |chosen: Tensor<B, 2, Int>| chosen.into_data().convert::<i32>().into_vec::<i32>().unwrap();
            let own = order(B::greedy_dpp(vectors.clone(), budget));
            assert_eq!(own, order(dpp::on_device(vectors.clone(), budget)), "{name}: on the device");
            assert_eq!(own, order(dpp::on_host(vectors, budget)), "{name}: on the host");
        }
    }
}

#[test]
fn every_body_of_the_dpp_chooses_the_same() {
    on_every_backend(&DppBodies);
}

/// Items that the chosen ones span come last, the longest first.
#[test]
fn a_dpp_beyond_the_rank_goes_by_length() {
    let vectors = [[3.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 0.0], [2.5, 0.0]];
    let data = TensorData::new(vectors.concat(), [1, 5, 2]);
    let vectors = Tensor::<Cpu, 3>::from_data(data, &Default::default());
    for body in [dpp::on_device::<Cpu>, dpp::on_host::<Cpu>] {
        let chosen: Vec<i32> = body(vectors.clone(), 5).into_data().convert::<i32>().into_vec().unwrap();
        assert_eq!(chosen, [0, 1, 4, 2, 3]);
    }
}
