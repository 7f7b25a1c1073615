//! Rotary scaling and tied embeddings as transformers 4.57 has them, and a vocabulary with more rows than pieces. Tolerance: 1e-3 on logits, and 1e-4 on the CPU's
//! default backend; ids up to the first near tie.

use secateur_backends::{Job, VlmBackend};

use crate::common::{
    copy_folder, fixture,
    golden::{Question, compare, compares_all, dtype, load},
    ids, json, on_every_backend, tensors, worst,
};
use secateur::pruner::Params;

const ROOT: &str = "rope-scaled";

/// A checkpoint, and the config that takes the place of its own.
const CHECKPOINTS: [(&str, Option<&str>); 9] = [
    ("linear", None),
    ("linear", Some("linear.type-only")),
    ("linear", Some("linear.both-names")),
    ("linear", Some("linear.rope_parameters-not-run")),
    ("llama3", None),
    ("llama3", Some("llama3.as-llama-3.1")),
    ("tied", None),
    ("tied", Some("tied.text_config-only")),
    ("resized", None),
];

#[derive(Clone)]
struct Scaled;

impl Job for Scaled {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let expected = json("rope-scaled/expected/expected.json");
        let golden = tensors("rope-scaled/expected/tensors.safetensors");
        let all = compares_all::<B>(&device);
        let mut compared = 0;
        for (folder, config) in
            CHECKPOINTS.into_iter().filter(|(folder, config)| all || *folder == "linear" && config.is_none())
        {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(&fixture(ROOT).join(folder), copy.path());
            if let Some(config) = config {
                let config = fixture(ROOT).join(format!("config-variants/{config}.json"));
                std::fs::copy(config, copy.path().join("config.json")).unwrap();
            }
            // Recorded as a folder of its own, because its logits are others.
            let folder = config.filter(|config| *config == "llama3.as-llama-3.1").unwrap_or(folder);
            let model = load::<B>(copy.path().to_str().unwrap(), None, dtype::<B>(), &device);
            for case in json("rope-scaled/cases.json").as_array().unwrap() {
                let id = case["id"].as_str().unwrap();
                for (tokens, run) in expected["checkpoints"][folder][id]["runs"].as_object().unwrap() {
                    if !all && (id != "s2" || tokens != "64") {
                        continue;
                    }
                    let label = format!("{folder} {config:?} {id} {tokens}");
                    let (method, params) = (run["method"].as_str().unwrap(), Params::default());
                    let max_new_tokens = ids::<u32>(&run["output_ids"]).len();
                    let tokens = tokens.parse().ok();
                    let found = Question { root: ROOT, case, method, tokens, params, max_new_tokens }.ask(&model);
                    let logits = &golden[&format!("{folder}.{id}.{}.first_logits", label.rsplit(' ').next().unwrap())];
                    assert_eq!(
                        compare(&found, &expected["checkpoints"][folder][id], run, &logits.values, &label),
                        Ok(())
                    );
                    let difference = worst(&found.logits, &logits.values);
                    assert!(!all || difference < 1e-4, "{label}: {difference}");
                    compared += 1;
                }
            }
        }
        assert_eq!(compared, if all { 36 } else { 1 });
    }
}

#[test]
fn scaled_positions_answer_like_transformers() {
    on_every_backend(&Scaled);
}
