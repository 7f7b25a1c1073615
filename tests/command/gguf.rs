//! Models in GGUF files, as a user names them.

use std::path::Path;

use crate::common::{fixture, hub::Hub};

const ROOT: &str = "gguf/tiny-llava-1.5-gguf";
const DECODER: &str = "llava-v1.5-tiny-Q4_K_M.gguf";
const ENCODER: &str = "mmproj-model-f16.gguf";
const ID: &str = "someone/tiny-gguf";

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

fn secateur(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
    let output = command.envs(environment.iter().copied()).args(arguments).output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn ask(environment: &[(&str, &str)], model: &str, more: &[&str]) -> Output {
    let image = fixture(ROOT).join("images/p1_200x140.png").display().to_string();
    let first = ["ask", &image, "What is in the middle of the picture?", "--max-new-tokens", "8", "--model", model];
    secateur(environment, &[&first, more].concat())
}

fn path(name: &str) -> String {
    fixture(ROOT).join(name).display().to_string()
}

#[test]
fn a_pair_answers_and_the_only_encoder_beside_it_is_found() {
    let named = ask(&[], &path(DECODER), &["--mmproj", &path(ENCODER)]);
    assert_eq!(named.code, 0, "{}", named.stderr);
    assert!(named.stdout.starts_with("the"), "{:?}", named.stdout);
    assert!(named.stderr.contains("in the form vicuna_v1"), "{}", named.stderr);

    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("model.gguf");
    std::fs::copy(path(DECODER), &alone).unwrap();
    let alone = alone.display().to_string();
    let without = ask(&[], &alone, &[]);
    assert_eq!(without.code, 1);
    assert!(without.stderr.contains("give it as --mmproj FILE.gguf"), "{}", without.stderr);
    std::fs::copy(path(ENCODER), folder.path().join("mmproj.gguf")).unwrap();
    assert_eq!(ask(&[], &alone, &[]).stdout, named.stdout);
    std::fs::copy(path(ENCODER), folder.path().join("other-mmproj.gguf")).unwrap();
    let several = ask(&[], &alone, &[]);
    assert!(
        several.stderr.contains("several image encoders beside it (mmproj.gguf, other-mmproj.gguf)"),
        "{}",
        several.stderr
    );

    let folder_named = ask(&[], &folder.path().display().to_string(), &[]);
    assert!(folder_named.stderr.contains("GGUF files: name the language model"), "{}", folder_named.stderr);
    let other = ask(&[], "demo", &["--mmproj", &path(ENCODER)]);
    assert!(other.code != 0 && other.stderr.contains("belongs to a language model in GGUF"), "{}", other.stderr);
}

#[test]
fn methods_that_the_files_cannot_serve_are_left_out_of_all_of_them() {
    let encoder = path(ENCODER);
    let refused = ask(&[], &path(DECODER), &["--mmproj", &encoder, "--method", "datp", "--tokens", "20"]);
    assert!(refused.code != 0 && refused.stderr.contains("last layer is not among them"), "{}", refused.stderr);
    let all =
        ask(&[], &path(DECODER), &["--mmproj", &encoder, "--method", "all", "--tokens", "20", "--fastv-layer", "1"]);
    assert_eq!(all.code, 0, "{}", all.stderr);
    assert!(all.stderr.contains("note: datp is left out"), "{}", all.stderr);
    assert!(!all.stdout.contains("datp") && all.stdout.contains("visionzip"), "{}", all.stdout);
}

#[test]
fn files_are_fetched_by_their_names() {
    let (hub, home) = (Hub::start(), tempfile::tempdir().unwrap());
    for (name, file) in [("tiny.gguf", DECODER), ("mmproj.gguf", ENCODER), ("other.gguf", "llava-v1.5-tiny-Q8_0.gguf")]
    {
        hub.add(ID, name, std::fs::read(path(file)).unwrap());
    }
    let environment = [("HF_ENDPOINT", &hub.endpoint[..]), ("HF_HOME", home.path().to_str().unwrap())];
    let [decoder, encoder] = ["tiny.gguf", "mmproj.gguf"].map(|name| format!("{ID}:{name}"));
    let fetched = ask(&environment, &decoder, &["--mmproj", &encoder]);
    assert_eq!(fetched.code, 0, "{}", fetched.stderr);
    assert_eq!(fetched.stdout, ask(&[], &path(DECODER), &["--mmproj", &path(ENCODER)]).stdout);
    assert!(!hub.requests().iter().any(|request| request.contains("other.gguf")));
    hub.requests();
    assert_eq!(ask(&environment, &decoder, &["--mmproj", &encoder]).code, 0);
    assert_eq!(hub.requests(), Vec::<String>::new(), "both were there");
    let pulled = secateur(&environment, &["pull", &format!("{ID}:other.gguf")]);
    assert!(pulled.code == 0 && pulled.stdout.trim().ends_with("other.gguf"), "{}", pulled.stderr);
    let missing = ask(&environment, &format!("{ID}:none.gguf"), &[]);
    assert!(missing.code != 0 && missing.stderr.contains("none of the files that are read"), "{}", missing.stderr);
    let whole = ask(&environment, ID, &[]);
    assert!(whole.code != 0 && whole.stderr.contains("owner/name:FILE.gguf"), "{}", whole.stderr);
}

fn quantize(out: &Path, more: &[&str]) -> Output {
    secateur(&[], &[&["quantize", "demo", out.to_str().unwrap()], more].concat())
}

#[test]
fn what_is_quantised_answers_as_what_is_quantised_when_it_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo.gguf");
    let written = quantize(&out, &["--blocks", "q8_0", "--json"]);
    assert_eq!(written.code, 0, "{}", written.stderr);
    let result: serde_json::Value = serde_json::from_str(&written.stdout).unwrap();
    assert_eq!(result["files"].as_array().unwrap().len(), 2);
    let again = quantize(&out, &["--blocks", "q8_0"]);
    assert!(again.code == 1 && again.stderr.contains("--force writes it anew"), "{}", again.stderr);
    assert_eq!(quantize(&out, &["--blocks", "q8_0", "--force"]).code, 0);
    assert_eq!(quantize(Path::new("demo.bin"), &[]).code, 2);

    let runs = folder.path().join("runs");
    let eval = |model: &[&str], out: &str| {
        let out = runs.join(out);
        let first = ["eval", "demo", "--limit", "12", "--method", "none", "--out", out.to_str().unwrap()];
        let output = secateur(&[], &[&first, model].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        let answers = std::fs::read_dir(&out).unwrap().flatten().find_map(|folder| {
            let config = std::fs::read_to_string(folder.path().join("config.json")).ok()?;
            let answers = std::fs::read_to_string(folder.path().join("answers.jsonl")).ok()?;
            Some((answers, serde_json::from_str::<serde_json::Value>(&config).unwrap()))
        });
        answers.unwrap()
    };
    let texts = |answers: &str| -> Vec<serde_json::Value> {
        answers.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["text"].clone()).collect()
    };
    let (from_file, settings) = eval(&["--model", out.to_str().unwrap()], "file");
    assert_eq!(settings["blocks"], "Q8_0");
    let (when_loaded, settings) = eval(&["--model", "demo", "--quantize", "q8_0"], "loaded");
    assert_eq!((&settings["quantize"], settings.get("activations")), (&"q8_0".into(), None));
    assert_eq!(texts(&from_file), texts(&when_loaded));
    let noted = |more: &[&str], words: &str| {
        let output = secateur(&[], &[&["eval", "demo", "--limit", "2", "--method", "none"], more].concat());
        assert!(output.stderr.contains(words), "{}", output.stderr);
    };
    let runs_of_notes = runs.join("notes").display().to_string();
    noted(&["--activations", "int8", "--out", &runs_of_notes], "--activations int8");
    noted(&["--model", out.to_str().unwrap(), "--quantize", "q4_k", "--out", &runs_of_notes], "stay in theirs");
    let (_, settings) = eval(&["--model", "demo", "--quantize", "q4_k", "--activations", "int8"], "int8");
    assert_eq!(settings["activations"], "int8");
}
