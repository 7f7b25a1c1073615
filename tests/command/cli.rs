//! The command line: stdout, stderr and exit codes.

use crate::common::{CLIP, LAYOUTS, fixture};
use assert_cmd::Command;
use secateur::pruner::{Params, methods};
use serde_json::Value;

pub(super) fn secateur(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("secateur").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

pub(super) fn path(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

pub(super) const BOAT: &str = "tiny-llava-1.5/images/boat_123x90.png";

pub(super) fn last_json(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
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
fn two_images_take_their_places_in_one_prompt() {
    let model = path(LAYOUTS[1]);
    let arguments = ["ask", &path(BOAT), &path(BOAT), "Same?", "--model", &model, "--tokens", "10", "--json"];
    let (code, stdout, stderr) = secateur(&[&arguments[..], &["--max-new-tokens", "2"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(last_json(&stdout)["visual_tokens"], 20);
    // Each image has a budget of its own, in every method.
    let (model, boat) = (path(LAYOUTS[0]), path(BOAT));
    let arguments = ["ask", &boat, &boat, "Same?", "--model", &model, "--tokens", "10", "--json", "--method", "all"];
    let (_, stdout, _) = secateur(&[&arguments[..], &["--max-new-tokens", "1"]].concat());
    for answer in last_json(&stdout)["answers"].as_array().unwrap() {
        let expected = match answer["method"].as_str().unwrap() {
            "none" => 1152,
            "trim" => 22,
            _ => 20,
        };
        assert_eq!(answer["visual_tokens"], expected, "{}", answer["method"]);
    }
    let (code, _, stderr) = secateur(&["ask", &path(BOAT), "<image><image> Same?", "--model", &model]);
    assert_eq!(code, 1);
    assert!(stderr.contains("2 `<image>` placeholders for 1 image"), "{stderr}");
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
    let all: Vec<&str> = methods(Params::default()).iter().map(|method| method.name()).collect();
    assert_eq!(names, all);
    let (_, stdout, _) = secateur(&["list", "methods"]);
    assert_eq!(stdout.lines().count(), all.len(), "a line each: {stdout}");
    let row = stdout.lines().find(|line| line.starts_with("datp ")).unwrap();
    for part in ["gate", "[CLS] attention of all layers", "prunes in the tower", "github.com/lqxass/DATP"] {
        assert!(row.contains(part), "{part} is not in {row}");
    }
}

#[test]
fn a_question_that_was_forgotten_is_missed() {
    for question in [path(BOAT), " ".to_owned()] {
        let (code, stdout, stderr) = secateur(&["ask", "--model", "demo", &path(BOAT), &question]);
        assert_eq!((code, stdout.as_str()), (2, ""));
        assert!(stderr.contains("the question is missing"), "{stderr}");
    }
    let (code, _, stderr) = secateur(&["ask", "--model", "demo", &path(BOAT), "What", "is", "this"]);
    assert!(code == 2 && stderr.contains("put the question in quotes: \"What is this\""), "{stderr}");
    let (code, _, stderr) = secateur(&["ask", "--model", "demo", "-", "What?"]);
    assert!(code == 2 && stderr.contains("standard input"), "{stderr}");
}

/// A night on an unpruned model, or a baseline published as a method, is not what was asked for.
#[test]
fn a_method_without_a_budget_is_refused() {
    for command in
        [&["ask", &path(BOAT), "Why?"][..], &["eval", "demo"], &["trace", "--image", &path(BOAT), "--question", "Why?"]]
    {
        let (code, stdout, stderr) = secateur(&[command, &["--model", "demo", "--method", "vispruner"]].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(stderr.contains("--method vispruner") && stderr.contains("--tokens N"), "{stderr}");
    }
    let ask = ["ask", &path(BOAT), "Is there a ring?", "--model", "demo"];
    let (code, _, stderr) =
        secateur(&[&ask[..], &["--method", "fastervlm", "--tokens", "9", "--theta", "0.5"]].concat());
    assert!(code == 0 && stderr.contains("note: --theta is cdpruner's; fastervlm does not read it"), "{stderr}");
    let (code, _, stderr) =
        secateur(&[&ask[..], &["--method", "CDPruner", "--tokens", "9", "--theta", "0.5"]].concat());
    assert!(code == 0 && !stderr.contains("--theta"), "{stderr}");
    assert!(!stderr.contains("tokens/s") || stderr.contains("– tokens/s"), "a rate of one word: {stderr}");
}

/// `--json` leaves stdout to a program.
#[test]
fn stdout_is_json_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let eval = ["eval", "demo", "--method", "grid", "--tokens", "64", "--limit", "3", "--out", out, "--json"];
    let ask = ["ask", &path(BOAT), "Is there a ring?", "--model", "demo", "--json"];
    let list = ["list", "benchmarks", "--json"];
    for args in [&eval[..], &ask, &list] {
        let (code, stdout, stderr) = secateur(args);
        assert_eq!(code, 0, "{stderr}");
        assert!(serde_json::from_str::<serde_json::Value>(&stdout).unwrap().is_object(), "{stdout}");
    }
    // The benchmark of the built-in checkpoint needs no --model; one line says what was scored.
    let (code, stdout, stderr) = secateur(&eval[..eval.len() - 1]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.starts_with("demo · demo · grid · 64 tokens · 2 answers · llava rules\n"), "{stdout}");
    assert!(stdout.contains("1 image does not have two answered questions and is left out"), "{stdout}");
    let run = folder.path().join("demo-demo-grid-64");
    let (code, scored, _) = secateur(&["score", "demo", run.to_str().unwrap()]);
    assert!(code == 0 && scored.starts_with("demo · demo · grid · 64 tokens · 2 answers"), "{scored}");
}

#[test]
fn usage_errors_exit_with_2_and_others_with_1() {
    assert_eq!(secateur(&["ask", "picture.png"]).0, 2);
    assert_eq!(secateur(&["prun"]).0, 2);
    let (code, _, stderr) = secateur(&["trace", "--question", "What?"]);
    assert!(code == 2 && stderr.contains("--image <IMAGE>|--video <VIDEO>"), "{stderr}");
    let model = path(LAYOUTS[0]);
    for (tokens, said) in [("0", "budget of 0"), ("101%", "at most 100%"), ("few", "64 or 12.5%")] {
        let (code, _, stderr) = secateur(&["ask", &path(BOAT), "Why?", "--model", &model, "--tokens", tokens]);
        assert!(code == 2 && stderr.contains(said), "{stderr}");
    }
    let ask_for = |expected: i32, extra: &[&str]| {
        let (code, stdout, stderr) = secateur(&[&["ask", &path(BOAT), "Why?", "--model", &model], extra].concat());
        assert_eq!((code, stdout.as_str()), (expected, ""), "{extra:?}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        stderr
    };
    let ask = |extra: &[&str]| ask_for(1, extra);
    let usage = |extra: &[&str]| ask_for(2, extra);
    let unknown = usage(&["--method", "fastvlm"]);
    assert!(
        unknown.contains("unknown method `fastvlm`; did you mean `fastervlm`? known: none, fastervlm"),
        "{unknown}"
    );
    assert!(ask(&["--tokens", "577"]).contains("1 to 576"));
    assert!(usage(&["--important-ratio", "1.5"]).contains("from 0 to 1"));
    assert!(usage(&["--theta", "0.99"]).contains("from 0 to 0.98"));
    for layer in ["0", "4"] {
        let refused = ask(&["--method", "fastv", "--fastv-layer", layer, "--tokens", "64"]);
        assert!(refused.contains(&format!("before layer {layer}")) && refused.contains("takes 1 to 3"), "{refused}");
    }
    assert!(ask(&["--grid", "2x2"]).contains("for LLaVA-NeXT"));
    assert!(usage(&["--method", "fastervlm,datp"]).contains("give it with --tokens"));
    assert!(usage(&["--method", "fastervlm,dapt", "--tokens", "9"]).contains("unknown method `dapt`"));
    let (_, _, stderr) = secateur(&["eval", "demo", "--model", "demo", "--method", "fastervlm,datp", "--tokens", "9"]);
    assert!(stderr.contains("--method takes one method here; `sweep`"), "{stderr}");
    // What is typed wrongly is said before a model is fetched.
    let (code, _, stderr) = secateur(&["ask", "--model", "/nowhere/model", "/nowhere/boat.png", "Why?"]);
    assert!(code == 1 && stderr.contains("/nowhere/boat.png"), "{stderr}");
    assert!(usage(&["--backend", "tpu"]).contains("unknown backend `tpu`"));
    assert!(usage(&["--temperature", "-1"]).contains("--temperature"));
    assert!(usage(&["--top-p", "0"]).contains("--top-p"));
    // An answer that no method has is a failure; the rows say why.
    let long = "Why? ".repeat(20_000);
    let (code, stdout, stderr) =
        secateur(&["ask", &path(BOAT), &long, "--model", &model, "--method", "fastervlm,datp", "--tokens", "9"]);
    assert!(code == 1 && stderr.contains("no method has an answer") && stdout.contains("shorten"), "{stdout}{stderr}");
    if cfg!(not(feature = "cuda")) {
        assert!(ask(&["--backend", "cuda"]).contains("not compiled in; rebuild with `--features cuda`"));
    }
}

#[test]
fn a_model_is_found_in_the_hugging_face_cache() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("hub/models--someone--tiny-llava");
    crate::common::copy_folder(&fixture(LAYOUTS[1]), &repo.join("snapshots/abc"));
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), "abc").unwrap();
    let output = Command::cargo_bin("secateur")
        .unwrap()
        .env("HF_HOME", home.path())
        .args(["ask", &path(BOAT), "Why?", "--model", "someone/tiny-llava", "--tokens", "5", "--max-new-tokens", "3"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!String::from_utf8_lossy(&output.stdout).trim().is_empty());
}

#[test]
fn several_methods_answer_side_by_side() {
    let model = path(LAYOUTS[0]);
    let ask = [
        "ask",
        &path(BOAT),
        "Is there a boat?",
        "--model",
        &model,
        "--tokens",
        "29",
        "--max-new-tokens",
        "4",
        "--json",
    ];
    let (code, stdout, stderr) = secateur(&[&ask[..], &["--method", "none,fastervlm,trim"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let starts: Vec<Vec<&str>> = stderr.lines().take(4).map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(starts, [["method", "tokens"], ["none", "576"], ["fastervlm", "29"], ["trim", "30"]]);
    let answers = last_json(&stdout)["answers"].clone();
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(answers[1]["method"], "fastervlm");
    assert!(answers[1]["ttft_ms"].as_f64().unwrap() > 0.0);

    let (_, stdout, _) = secateur(&[&ask[..], &["--method", "grid,none,grid"]].concat());
    assert_eq!(last_json(&stdout)["answers"].as_array().unwrap().len(), 2, "each once");
    let (code, stdout, _) = secateur(&[&ask[..], &["--method", "all"]].concat());
    assert_eq!((code, last_json(&stdout)["answers"].as_array().unwrap().len()), (0, methods(Params::default()).len()));
}

/// llava-hf checkpoints leave CLIP's text side out: it is named, or looked up, or the methods are left out.
#[test]
fn a_missing_text_side_gets_a_sentence() {
    let home = tempfile::tempdir().unwrap();
    let run = |more: &[&str]| {
        let output = Command::cargo_bin("secateur")
            .unwrap()
            .env("HF_HOME", home.path())
            .args(["ask", &path(BOAT), "Why?", "--model", &path(LAYOUTS[1]), "--tokens", "9", "--max-new-tokens", "1"])
            .args(more)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, _, stderr) = run(&["--method", "cdpruner"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("openai/clip-vit-large-patch14-336"), "{stderr}");
    let (code, stdout, stderr) = run(&["--method", "all"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.starts_with("note: methods that read CLIP's text side are left out"), "{stderr}");
    assert!(!stdout.contains("cdpruner") && stdout.contains("datp"));
    let (code, _, stderr) = run(&["--method", "cdpruner", "--clip", &path(CLIP)]);
    assert_eq!(code, Some(0), "{stderr}");
}

/// `secateur list methods --markdown` writes the table.
#[test]
fn the_readme_has_the_table_of_methods() {
    assert_eq!(secateur(&["list", "models", "--markdown"]).0, 2, "there is one of methods only");
    let (code, table, _) = secateur(&["list", "methods", "--markdown"]);
    assert_eq!(code, 0);
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&table), "README lacks this table of methods:\n{table}");
}

/// The answer, whichever instructions its kernels are kept to.
#[test]
fn kernels_can_be_kept_to_older_instructions() {
    let blocks = ["llava-v1.5-tiny-Q4_K_M.gguf", "mmproj-model-f16.gguf"]
        .map(|name| path(&format!("gguf/tiny-llava-1.5-gguf/{name}")));
    let models = [vec![path(LAYOUTS[0])], vec![blocks[0].clone(), "--mmproj".to_owned(), blocks[1].clone()]];
    let trace = |model: &[String], kernels: &str| {
        let mut command = Command::cargo_bin("secateur").unwrap();
        command.env("SECATEUR_KERNELS", kernels);
        let args = ["trace", "--image", &path(BOAT), "--question", "What is it?", "--tokens", "64", "--model"];
        let output = command.args(args).args(model).output().unwrap();
        (output.status.code(), output)
    };
    let answer = |stdout: &[u8]| {
        let json: serde_json::Value = serde_json::from_slice(stdout).unwrap();
        (json["kept"].clone(), json["output_ids"].clone())
    };
    for model in &models {
        let (code, newest) = trace(model, "");
        assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&newest.stderr));
        for kernels in ["portable", "avx2", "avx512", "avx512vnni", "avx512bf16", "amx"] {
            let (code, found) = trace(model, kernels);
            assert_eq!(code, Some(0), "{kernels}");
            assert_eq!(answer(&found.stdout), answer(&newest.stdout), "{model:?} with {kernels}");
        }
    }
    let (code, refused) = trace(&models[0], "sse9");
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(code == Some(1) && stderr.contains("portable, avx2, avx512"), "{stderr}");
    let (_, stdout, _) = secateur(&["list", "backends", "--json"]);
    let lists: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let flex = lists["backends"].as_array().unwrap().iter().find(|row| row["name"] == "flex").unwrap().clone();
    assert!(flex["instructions"].is_string() && flex["kernels"]["products of many rows"].is_string(), "{flex}");
    assert!(flex["kernels"]["products of blocks with few rows"].is_string(), "{flex}");
}
