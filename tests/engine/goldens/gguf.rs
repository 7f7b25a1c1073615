//! Pairs of GGUF files against transformers with the values of their blocks: tokenizers, kept patches, logits, answers; and broken files.

use burn::tensor::{DType, Tensor, TensorData};
use secateur::{
    model::{Beside, Checkpoint, LoadOptions, Model, open},
    pruner::{Params, method},
};
use secateur_backends::{BlockType, Job, Rounding, VlmBackend, operations::linear_blocks};
use secateur_weights::Gguf;
use serde_json::Value;

use crate::common::{
    fixture,
    golden::{Question, compare, compares_all, is_brief, values},
    ids, json, on_every_backend, tensors,
};

/// A set of fixtures: its folder, the files of the language model with their names in `expected`, and the image encoders.
struct Set {
    root: &'static str,
    decoders: &'static [(&'static str, &'static str)],
    encoders: &'static [&'static str],
    /// Runs of each method that are compared.
    runs: [usize; 5],
}

const SETS: [Set; 2] = [
    Set {
        root: "gguf/tiny-llava-1.5-gguf",
        decoders: &[
            ("llava-v1.5-tiny-Q4_K_M.gguf", "Q4_K_M/"),
            ("llava-v1.5-tiny-F16.gguf", "F16/"),
            ("llava-v1.5-tiny-Q8_0.gguf", "Q8_0/"),
            ("llava-v1.5-tiny-Q5_K_M.gguf", "Q5_K_M/"),
            ("llava-v1.5-tiny-Q4_0.gguf", "Q4_0/"),
        ],
        encoders: &["mmproj-model-f16.gguf", "mmproj-new-names-f16.gguf"],
        runs: [3, 6, 4, 6, 6],
    },
    Set {
        root: "gguf/tiny-llava-1.6-gguf",
        decoders: &[("llava-v1.6-tiny-Q4_K_M.gguf", "")],
        encoders: &["mmproj-model-f16.gguf"],
        runs: [3, 6, 0, 6, 6],
    },
];

const METHODS: [&str; 5] = ["none", "fastervlm", "vispruner", "divprune", "visionzip"];

fn pair(root: &str, decoder: &str, encoder: &str) -> Result<Checkpoint, secateur::Error> {
    let [decoder, encoder] = [decoder, encoder].map(|name| fixture(root).join(name).display().to_string());
    open(&decoder, Beside { mmproj: Some(&encoder), clip: None })
}

#[derive(Clone)]
struct Answers;

impl Job for Answers {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let all = compares_all::<B>(&device);
        for set in SETS {
            for (i, (decoder, expected)) in set.decoders.iter().enumerate() {
                // Two files stand for all where a run takes seconds.
                if !all && i > 1 {
                    continue;
                }
                let encoder = set.encoders[i % set.encoders.len()];
                // Where blocks do not stay in blocks they become 16-bit weights, which cannot meet the tolerance.
                let dtype = (!B::keeps_blocks()).then_some(DType::F32);
                let options = LoadOptions { dtype, ..LoadOptions::default() };
                let model: Model<B> = pair(set.root, decoder, encoder).unwrap().load(options, &device).unwrap();
                for (method, runs) in METHODS.into_iter().zip(set.runs) {
                    if is_brief::<B>(&device) && method != "fastervlm" {
                        continue;
                    }
                    let folder = format!("{}/expected/{expected}{method}", set.root);
                    let found = answers(&model, &set, &folder, method, all);
                    let expected = if all { runs } else { usize::from(method != "none" && runs > 0) };
                    assert_eq!(found, expected, "{decoder} {method}");
                }
            }
        }
    }
}

/// Compares the runs of a method, and returns their number.
fn answers<B: VlmBackend>(model: &Model<B>, set: &Set, folder: &str, method: &str, all: bool) -> usize {
    let (expected, golden) = (json(&format!("{folder}.json")), tensors(&format!("{folder}.safetensors")));
    let mut compared = 0;
    for case in json(&format!("{}/cases.json", set.root)).as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        for (tokens, run) in expected["cases"][id]["runs"].as_object().unwrap() {
            let is_chosen = tokens == "20" && ["p2", "q2"].contains(&id);
            if run["robust"] == false || !all && !is_chosen {
                continue;
            }
            let max_new_tokens = ids::<u32>(&run["output_ids"]).len();
            let (tokens_kept, params) = (tokens.parse().ok(), Params::default());
            let question = Question { root: set.root, case, method, tokens: tokens_kept, params, max_new_tokens };
            let logits = &golden[&format!("{id}.{tokens}.first_logits")].values;
            let label = format!("{folder} {id} {tokens}");
            let found = question.ask(model);
            let run = &with_merged(run, set.root, id, tokens, method);
            assert_eq!(compare(&found, &expected["cases"][id], run, logits, &label), Ok(()), "{label}");
            compared += 1;
        }
    }
    compared
}

/// The run with the centres of VisionZip's merged tokens behind the patches that it keeps as they are.
fn with_merged(run: &Value, root: &str, id: &str, tokens: &str, method: &str) -> Value {
    let mut run = run.clone();
    if method != "visionzip" {
        return run;
    }
    let of_crop = |tokens: &Value| tokens.as_array().unwrap().iter().map(|token| token["centre"].clone()).collect();
    let centres: Vec<Vec<Value>> = match root {
        "gguf/tiny-llava-1.5-gguf" => {
            vec![of_crop(&json(&format!("{root}/expected/kept.json"))[id][method][tokens]["contextual"][0])]
        }
        _ => {
            let all = json(&format!("{root}/expected/visionzip_contextual.json"));
            all[id][tokens].as_array().unwrap().iter().map(of_crop).collect()
        }
    };
    for (kept, centres) in run["kept"].as_array_mut().unwrap().iter_mut().zip(centres) {
        let kept = kept.as_array_mut().unwrap();
        kept.extend(centres);
        kept.sort_by_key(|patch| patch.as_u64());
    }
    run
}

#[test]
fn kept_patches_logits_and_answers_are_those_of_the_values() {
    on_every_backend(&Answers);
}

/// Products of every layout of blocks with one row, five and 33, beside sums in f64.
#[derive(Clone)]
struct Products;

impl Job for Products {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let x = tensors("gguf/blocks/x.safetensors");
        let brief = is_brief::<B>(&device);
        for kind in if brief { &BlockType::ALL[4..5] } else { &BlockType::ALL[..] } {
            let file = Gguf::open(&fixture(&format!("gguf/blocks/{kind}.gguf"))).unwrap();
            let expected = tensors(&format!("gguf/blocks/{kind}.safetensors"));
            for (name, tensor) in &file.tensors {
                let name = name.strip_suffix(".weight").unwrap();
                let blocks = tensor.blocks().unwrap();
                let [outputs, columns] = blocks.shape();
                let (x, weight) =
                    (&x[&format!("x.{columns}")].values, &expected[&format!("{name}.dequantized")].values);
                for rows in if brief { vec![5] } else { vec![1, 5, 33] } {
                    let x = &x[..rows * columns];
                    let wanted = &expected[&format!("{name}.y")].values[..rows * outputs];
                    // The bounds: sums in f32; both factors in bf16; 7 bits of a run's largest input, which one row has among
                    // small ones.
                    for (rounding, bound) in [(Rounding::None, 1e-5), (Rounding::Bf16, 8e-3), (Rounding::Int8, 2e-2)] {
                        let rows_of_x =
                            Tensor::<B, 2>::from_data(TensorData::new(x.to_vec(), [rows, columns]), &device);
                        let found = values(linear_blocks(rows_of_x, &blocks, rounding));
                        for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                            let terms =
                                x[i / outputs * columns..][..columns].iter().zip(&weight[i % outputs * columns..]);
                            let size: f64 = terms.map(|(x, w)| f64::from(*x).abs() * f64::from(*w).abs()).sum();
                            let error = f64::from((found - wanted).abs());
                            assert!(
                                error <= bound * size,
                                "{kind} {name} {rows} rows {rounding:?} at {i}: {error} of {size}"
                            );
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_the_values() {
    on_every_backend(&Products);
}

#[test]
fn text_goes_to_the_ids_of_sentencepiece_and_back() {
    let set = &SETS[0];
    let checkpoint = pair(set.root, set.decoders[0].0, set.encoders[0]).unwrap();
    let expected = json(&format!("{}/expected/tokenizer.json", set.root));
    let rows = expected["encode"].as_array().unwrap();
    assert!(rows.len() > 10);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let found = checkpoint.tokenizer.encode(text).unwrap();
        assert_eq!(found, ids::<u32>(&row["ids"]), "{text:?}");
        assert_eq!(checkpoint.tokenizer.decode(&found), row["decoded"].as_str().unwrap(), "{text:?}");
    }
}

#[test]
fn methods_that_the_files_cannot_serve_are_refused_with_a_way_out() {
    let set = &SETS[0];
    let checkpoint = pair(set.root, set.decoders[0].0, set.encoders[0]).unwrap();
    for (name, refused) in json(&format!("{}/expected/refused.json", set.root)).as_object().unwrap() {
        let needs = method(name, Params::default()).unwrap().card().needs;
        let said = match needs.reads_question() {
            true => checkpoint.check_text_side().unwrap_err().to_string(),
            false => checkpoint.check_needs(needs).unwrap_err().to_string(),
        };
        for word in refused["message_should_name"].as_array().unwrap() {
            assert!(said.contains(word.as_str().unwrap()), "{name}: {said}");
        }
        assert!(said.contains("fastervlm"), "{name}: {said}");
    }
    for name in ["none", "fastervlm", "vispruner", "divprune", "visionzip", "fastv"] {
        checkpoint.check_needs(method(name, Params::default()).unwrap().card().needs).unwrap();
    }
}

#[test]
#[cfg(feature = "flex")]
fn broken_files_are_refused_with_a_sentence() {
    let root = "gguf/bad";
    let cases = json(&format!("{root}/cases.json"));
    let mut refused = 0;
    for case in cases.as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let (decoder, encoder) =
            if case["role"] == "llm" { (file, "good-mmproj.gguf") } else { ("good-llm.gguf", file) };
        let load = |checkpoint: Checkpoint| {
            checkpoint.load::<secateur_backends::Flex>(LoadOptions::default(), &Default::default())
        };
        let found = pair(root, decoder, encoder).and_then(load);
        let words: Vec<String> = case["message_should_contain_one_of"]
            .as_array()
            .unwrap()
            .iter()
            .map(|word| word.as_str().unwrap().to_lowercase())
            .collect();
        match found {
            Ok(_) => assert!(case["ok"] == true, "{file} was read: {}", case["wrong"]),
            Err(error) => {
                let said = error.to_string();
                assert!(case["ok"] != true, "{file}: {said}");
                assert!(said.contains(file), "{file}: {said}");
                assert!(
                    words.iter().any(|word| said.to_lowercase().contains(word)),
                    "{file}: {said} has none of {words:?}"
                );
                refused += 1;
            }
        }
    }
    assert_eq!(refused, 40);
}

/// Checkpoints on Vicuna, Mistral and Llama-3, written as GGUF files: the tokenizer, the form of questions and the answers are theirs.
#[test]
#[cfg(feature = "flex")]
fn what_is_written_is_the_checkpoint() {
    for (folder, strings) in [
        ("tiny-llava-1.5/llava-1.5-tiny-hf", "tiny-llava-1.6-mistral"),
        ("tiny-llava-1.6-mistral/llava-v1.6-mistral-tiny-hf", "tiny-llava-1.6-mistral"),
        ("tiny-llava-1.6-llama3/llama3-llava-next-tiny-hf", "tiny-llava-1.6-llama3"),
    ] {
        let original = open(&fixture(folder).display().to_string(), Beside::default()).unwrap();
        let out = tempfile::tempdir().unwrap();
        let path = out.path().join("written.gguf");
        let [decoder, encoder] = original.write_gguf(&path, secateur::model::Quantise::Q8_0, |_, _, _| {}).unwrap();
        let written = open(decoder.to_str().unwrap(), Beside { mmproj: encoder.to_str(), clip: None }).unwrap();
        assert_eq!(written.chat().own.name, original.chat().own.name, "{folder}");
        assert_eq!(written.decoder().vocab_size, original.decoder().vocab_size, "{folder}");
        let expected = json(&format!("{strings}/expected/tokenizer.json"));
        for row in expected["encode"].as_object().unwrap().values() {
            let text = row["text"].as_str().unwrap();
            // The legacy rule of the slow tokenizer, which files do not say, splits text at special tokens otherwise.
            if !text.contains('<') {
                let ids = original.tokenizer.encode(text).unwrap();
                assert_eq!(written.tokenizer.encode(text).unwrap(), ids, "{folder} {text:?}");
                assert_eq!(written.tokenizer.decode(&ids), original.tokenizer.decode(&ids), "{folder} {text:?}");
            }
        }
        let load = |checkpoint: Checkpoint, quantise| -> Model<secateur_backends::Flex> {
            checkpoint.load(LoadOptions { quantise, ..LoadOptions::default() }, &Default::default()).unwrap()
        };
        let [original, written] = [load(original, Some(secateur::model::Quantise::Q8_0)), load(written, None)];
        let ids: Vec<u32> = (5..25).collect();
        let logits = |model: &Model<secateur_backends::Flex>| {
            model.logits(model.embed(&ids), &mut [secateur::model::Chunk::whole(ids.len())]).concat()
        };
        // The blocks are the same; vectors go through f32 in both.
        let worst = crate::common::worst(&logits(&written), &logits(&original));
        assert!(worst < 1e-4, "{folder}: {worst}");
    }
}
