//! LLaVA-NeXT on Mistral and on Llama-3 in both layouts, against the official code: prompts, tokenizers, kept patches, logits, answers.

use secateur_backends::{Job, VlmBackend};

use crate::common::{
    fixture,
    golden::{Question, compare, compares_all, dtype, is_brief, load},
    ids, json, on_every_backend, tensors,
};
use secateur::{
    model::{Beside, open},
    pruner::Params,
    text::{Prompt, Turn},
};

/// CLIP's text side, which both use.
const CLIP: &str = "tiny-llava-1.6-mistral/clip-vit-tiny-patch14-336";

/// A family's fixtures.
#[derive(Clone, Copy)]
struct Set {
    root: &'static str,
    original: &'static str,
    hf: &'static str,
    /// The key of the prompts' ids.
    ids: &'static str,
    /// Runs of each method that are compared.
    runs: [usize; 4],
}

const SETS: [Set; 2] = [
    Set {
        root: "tiny-llava-1.6-mistral",
        original: "llava-v1.6-mistral-tiny",
        hf: "llava-v1.6-mistral-tiny-hf",
        ids: "official_ids",
        runs: [6, 18, 18, 17],
    },
    Set {
        root: "tiny-llava-1.6-llama3",
        original: "llama3-llava-next-tiny",
        hf: "llama3-llava-next-tiny-hf",
        ids: "ids",
        runs: [4, 8, 7, 8],
    },
];

const METHODS: [&str; 4] = ["none", "fastervlm", "cdpruner", "divprune"];

#[derive(Clone)]
struct Answers;

impl Job for Answers {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let all = compares_all::<B>(&device);
        for set in SETS {
            let layouts = if all { vec![set.original, set.hf] } else { vec![set.hf] };
            for layout in layouts {
                let model = load::<B>(&format!("{}/{layout}", set.root), Some(CLIP), dtype::<B>(), &device);
                for (method, runs) in METHODS.into_iter().zip(set.runs) {
                    if is_brief::<B>(&device) && set.root != SETS[0].root && method != "fastervlm" {
                        continue;
                    }
                    let expected = json(&format!("{}/expected/{method}.json", set.root));
                    let golden = tensors(&format!("{}/expected/{method}.safetensors", set.root));
                    let mut compared = 0;
                    for case in json(&format!("{}/cases.json", set.root)).as_array().unwrap() {
                        let id = case["id"].as_str().unwrap();
                        for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
                            // One small image stands for all where a run takes seconds.
                            if run["robust"] == false || !all && (tokens != "20" || !["p3", "q2"].contains(&id)) {
                                continue;
                            }
                            let label = format!("{layout} {method} {id} {tokens}");
                            let max_new_tokens = ids::<u32>(&run["output_ids"]).len();
                            let (budget, params) = (tokens.parse().ok(), Params::default());
                            let question =
                                Question { root: set.root, case, method, tokens: budget, params, max_new_tokens };
                            let logits = &golden[&format!("{id}.{tokens}.first_logits")].values;
                            let found = question.ask(&model);
                            assert_eq!(compare(&found, &expected["cases"][id], run, logits, &label), Ok(()), "{label}");
                            compared += 1;
                        }
                    }
                    assert_eq!(compared, if all { runs } else { usize::from(method != "none") }, "{layout} {method}");
                }
            }
        }
    }
}

#[test]
fn kept_patches_logits_and_answers_are_the_official_ones() {
    on_every_backend(&Answers);
}

#[test]
fn prompts_are_the_official_ones() {
    for set in SETS {
        for layout in [set.original, set.hf] {
            let checkpoint = open(fixture(set.root).join(layout).to_str().unwrap(), Beside::default()).unwrap();
            let prompts = json(&format!("{}/expected/prompts.json", set.root));
            for case in json(&format!("{}/cases.json", set.root)).as_array().unwrap() {
                let text = checkpoint.chat().own.render(case["question"].as_str().unwrap(), &[1]).unwrap();
                let found = Prompt::new(&text, "", &checkpoint.tokenizer).unwrap();
                let expected = &prompts["cases"][case["id"].as_str().unwrap()][set.ids];
                assert_eq!(found.ids, ids::<i64>(expected), "{layout} {}", case["id"]);
            }
        }
    }
}

#[test]
fn text_goes_to_the_official_ids_and_back() {
    for (set, key, decoded, conversation) in
        [(SETS[0], "fast", "fast", "input_ids"), (SETS[1], "ids", "decoded", "ids")]
    {
        for layout in [set.original, set.hf] {
            let checkpoint = open(fixture(set.root).join(layout).to_str().unwrap(), Beside::default()).unwrap();
            let (tokenizer, form) = (&checkpoint.tokenizer, checkpoint.chat().own);
            let expected = json(&format!("{}/expected/tokenizer.json", set.root));
            for row in expected["encode"].as_object().unwrap().values() {
                let text = row["text"].as_str().unwrap();
                // The -hf tokenizers have a token for the placeholder, which prompts are cut at.
                if text.contains("<image>") {
                    continue;
                }
                let found = tokenizer.encode(text).unwrap();
                assert_eq!(found, ids::<u32>(&row[key]), "{layout} {text:?}");
                let back = row.get("fast_decoded").unwrap_or(&row["decoded"]).as_str().unwrap();
                assert_eq!(tokenizer.decode(&found), back, "{layout} {text:?}");
            }
            for row in expected["decode"].as_object().unwrap().values() {
                let found = tokenizer.decode(&ids::<u32>(&row["ids"]));
                assert_eq!(found, row[decoded].as_str().unwrap(), "{layout} {row}");
            }
            for (name, row) in expected["conversations"].as_object().unwrap() {
                let messages: Vec<Option<&str>> =
                    row["messages"].as_array().unwrap().iter().map(|m| m.as_str()).collect();
                let turns: Vec<Turn> = messages
                    .chunks(2)
                    .map(|pair| Turn { user: pair[0].unwrap().to_owned(), answer: pair[1].map(str::to_owned) })
                    .collect();
                let found = Prompt::new(&form.conversation(None, &turns), "", tokenizer).unwrap().ids;
                assert_eq!(found, ids::<i64>(&row[conversation]), "{layout} {name}");
            }
        }
    }
}

/// The tower in the checkpoint is the one, whichever field says so, and whatever other servers added to the config.
#[test]
fn later_configs_of_the_original_layout_open_the_same() {
    let root = fixture("tiny-llava-1.6-llama3");
    let mut sums = Vec::new();
    for variant in [None, Some("original-with-text_config"), Some("original-unfreeze")] {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        crate::common::copy_folder(&root.join("llama3-llava-next-tiny"), &inner);
        let clip = folder.path().join("tiny-llava-1.6-mistral/clip-vit-tiny-patch14-336");
        std::fs::create_dir_all(&clip).unwrap();
        crate::common::copy_folder(&fixture(CLIP), &clip);
        if let Some(variant) = variant {
            std::fs::copy(root.join(format!("config-variants/{variant}.json")), inner.join("config.json")).unwrap();
        }
        let model = open(inner.to_str().unwrap(), Beside::default()).unwrap();
        let model = model.load::<crate::common::Cpu>(Default::default(), &Default::default()).unwrap();
        assert_eq!(model.ends(), [993, 985]);
        let logits = model.logits(model.embed(&[984, 5, 6]), &mut [secateur::model::Chunk::whole(3)]);
        sums.push(logits);
    }
    assert!(sums.windows(2).all(|pair| pair[0] == pair[1]));
}
