//! The command line: stdout, stderr and exit codes.

mod common;

use std::path::Path;

use assert_cmd::Command;
use common::{LAYOUTS, fixture, indices, json, tensors, write_tensors};
use serde_json::Value;

fn secateur(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("secateur").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn path(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

const BOAT: &str = "tiny-llava-1.5/images/boat_123x90.png";

fn last_json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn trace_prints_the_contract() {
    let case = &json("tiny-llava-1.5/cases.json")[0];
    let expected = &json("tiny-llava-1.5/expected/fastervlm.json")["cases"]["c1"];
    let run = &expected["runs"]["29"];
    for layout in LAYOUTS {
        let (code, stdout, stderr) = secateur(&[
            "trace",
            "--model",
            &path(layout),
            "--image",
            &path(BOAT),
            "--question",
            case["question"].as_str().unwrap(),
            "--tokens",
            "29",
            "--logits",
        ]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(stdout.lines().count(), 1);
        let trace = last_json(&stdout);
        assert_eq!(trace["prompt_ids"], expected["input_ids"]);
        assert_eq!((&trace["crops"], &trace["patches"]), (&1.into(), &576.into()));
        assert_eq!(trace["kept"], run["kept"]);
        assert_eq!(trace["visual_tokens"], 29);
        assert_eq!(trace["output_ids"], run["output_ids"]);
        assert_eq!(trace["text"], run["text"]);
        assert!(trace["logits"].as_array().unwrap().len() >= 1280);
        for stage in ["vision", "prune", "prefill", "decode"] {
            assert!(trace["timings_ms"][stage].as_f64().unwrap() >= 0.0, "{stage}");
        }
    }
}

#[test]
fn trace_without_tokens_prunes_nothing() {
    let arguments = ["trace", "--model", &path(LAYOUTS[1]), "--image", &path(BOAT), "--question", "What?"];
    let (code, stdout, _) = secateur(&[&arguments[..], &["--max-new-tokens", "2"]].concat());
    let trace = last_json(&stdout);
    assert_eq!(code, 0);
    assert_eq!(trace["visual_tokens"], 576);
    assert!(trace.get("logits").is_none());
    assert!(trace["output_ids"].as_array().unwrap().len() <= 2);
}

#[test]
fn the_baseline_has_no_budget() {
    let arguments = ["trace", "--model", &path(LAYOUTS[1]), "--image", &path(BOAT), "--question", "What?"];
    let more = ["--max-new-tokens", "1", "--method", "none", "--tokens", "64"];
    let (code, stdout, stderr) = secateur(&[&arguments[..], &more].concat());
    assert_eq!((code, &last_json(&stdout)["visual_tokens"]), (0, &576.into()));
    assert!(stderr.contains("--tokens 64 is not used"), "{stderr}");
}

#[test]
fn ask_streams_the_answer_and_reports_on_stderr() {
    let model = path(LAYOUTS[0]);
    let ask = ["ask", &path(BOAT), "Is there a boat?", "--model", &model, "--tokens", "64", "--max-new-tokens", "8"];
    let (code, stdout, stderr) = secateur(&ask);
    assert_eq!(code, 0);
    assert!(!stdout.trim().is_empty());
    assert_eq!(stderr.lines().count(), 1);
    assert!(stderr.starts_with("visual tokens 576 → 64 (fastervlm"), "{stderr}");

    let (_, with_json, _) = secateur(&[&ask[..], &["--json"]].concat());
    let result = last_json(&with_json);
    assert_eq!(result["visual_tokens"], 64);
    assert_eq!(format!("{}\n", result["text"].as_str().unwrap()), stdout);
}

#[test]
fn a_seed_repeats_a_sampled_answer() {
    let ask = |seed: &str| {
        let model = path(LAYOUTS[1]);
        let arguments = ["ask", &path(BOAT), "Why?", "--model", &model, "--temperature", "1", "--top-p", "0.9"];
        secateur(&[&arguments[..], &["--max-new-tokens", "12", "--seed", seed]].concat()).1
    };
    assert_eq!(ask("1"), ask("1"));
    assert_ne!(ask("1"), ask("2"));
}

#[test]
fn two_pictures_take_their_places_in_one_prompt() {
    let model = path(LAYOUTS[1]);
    let arguments = ["ask", &path(BOAT), &path(BOAT), "Same?", "--model", &model, "--tokens", "10", "--json"];
    let (code, stdout, stderr) = secateur(&[&arguments[..], &["--max-new-tokens", "2"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(last_json(&stdout)["visual_tokens"], 20);
    let (code, _, stderr) = secateur(&["ask", &path(BOAT), "<image><image> Same?", "--model", &model]);
    assert_eq!(code, 1);
    assert!(stderr.contains("2 `<image>` marks for 1 image"), "{stderr}");
}

#[test]
fn prune_reads_exported_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.safetensors");
    let inputs = tensors("pruners/attention/natural_b5.safetensors");
    let (attention, features) = (&inputs["cls_attentions"], &inputs["image_features"]);
    write_tensors(
        &cues,
        &[
            ("cls_attention", [&[1], &attention.shape[..]].concat(), attention.values.clone()),
            ("features", features.shape.clone(), features.values.clone()),
        ],
    );
    let file = cues.to_str().unwrap();
    for run in json("pruners/fastervlm/expected.json")["cases"]["natural_b5"]["runs"].as_array().unwrap() {
        let tokens = run["visual_token_num"].to_string();
        let (code, stdout, stderr) = secateur(&["prune", "--method", "fastervlm", "--tokens", &tokens, file]);
        assert_eq!(code, 0, "{stderr}");
        let pruned = last_json(&stdout);
        assert_eq!((&pruned["method"], &pruned["tokens"].to_string()), (&"fastervlm".into(), &tokens));
        assert_eq!(indices(&pruned["kept"]), indices(&run["kept"]));
    }

    let (code, _, stderr) = secateur(&["prune", "--tokens", "577", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("577") && stderr.contains("1 to 576"), "{stderr}");

    write_tensors(&cues, &[("features", vec![1, 4, 2], vec![0.0; 8])]);
    let (code, _, stderr) = secateur(&["prune", "--tokens", "2", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`cls_attention` [layers, crops, heads, patches]"), "{stderr}");

    write_tensors(&cues, &[("cls_attention", vec![4, 2], vec![0.0; 8])]);
    let (code, _, stderr) = secateur(&["prune", "--tokens", "2", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("[4, 2]") && stderr.contains("4 dimensions"), "{stderr}");
}

#[test]
fn list_shows_every_registry() {
    let (code, stdout, _) = secateur(&["list"]);
    assert_eq!(code, 0);
    for name in ["fastervlm", "liuhaotian/llava-v1.5-7b", "mme", "flex", "cuda"] {
        assert!(stdout.contains(name), "{name} is not in {stdout}");
    }
    let (_, stdout, _) = secateur(&["list", "methods", "--json"]);
    let names: Vec<Value> =
        last_json(&stdout)["methods"].as_array().unwrap().iter().map(|m| m["name"].clone()).collect();
    assert_eq!(names, ["none", "fastervlm", "vispruner", "datp"]);
}

#[test]
fn usage_errors_exit_with_2_and_others_with_1() {
    assert_eq!(secateur(&["ask", "picture.png"]).0, 2);
    assert_eq!(secateur(&["prun"]).0, 2);
    let model = path(LAYOUTS[0]);
    let ask = |extra: &[&str]| {
        let (code, stdout, stderr) = secateur(&[&["ask", &path(BOAT), "Why?", "--model", &model], extra].concat());
        assert_eq!((code, stdout.as_str()), (1, ""), "{extra:?}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{stderr}");
        stderr
    };
    assert!(
        ask(&["--method", "fastvlm"]).contains("unknown method `fastvlm`; known: none, fastervlm, vispruner, datp")
    );
    assert!(ask(&["--tokens", "0"]).contains("budget of 0"));
    assert!(ask(&["--tokens", "577"]).contains("1 to 576"));
    assert!(ask(&["--important-ratio", "1.5"]).contains("from 0 to 1"));
    assert!(ask(&["--backend", "tpu"]).contains("unknown backend `tpu`"));
    assert!(ask(&["--temperature", "-1"]).contains("--temperature"));
    assert!(ask(&["--top-p", "0"]).contains("--top-p"));
    if cfg!(not(feature = "cuda")) {
        assert!(ask(&["--backend", "cuda"]).contains("not compiled in; rebuild with `--features cuda`"));
    }
}

#[test]
fn a_model_that_is_not_there_gets_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let output = Command::cargo_bin("secateur")
        .unwrap()
        .env("HF_HOME", home.path())
        .args(["ask", &path(BOAT), "Why?", "--model", "liuhaotian/llava-v1.5-7b"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("hf download liuhaotian/llava-v1.5-7b"), "{stderr}");
}

#[test]
fn a_model_is_found_in_the_hugging_face_cache() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("hub/models--someone--tiny-llava");
    common::copy_folder(&fixture(LAYOUTS[1]), &repo.join("snapshots/abc"));
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "abc").unwrap();
    let output = Command::cargo_bin("secateur")
        .unwrap()
        .env("HF_HOME", home.path())
        .args(["ask", &path(BOAT), "Why?", "--model", "someone/tiny-llava", "--tokens", "5", "--max-new-tokens", "3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(Path::new(&repo).is_dir());
}
