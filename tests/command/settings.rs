//! What a run records of its settings, and what it says of a question that it cannot ask.

use std::path::Path;

use crate::common::fixture;
use assert_cmd::Command;
use serde_json::{Value, json};

/// Runs in the folder `here`: exit code, stdout and stderr.
fn eval(here: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    let output = command.current_dir(here).arg("eval").args(args).args(["--out", "runs"]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_parameter_is_the_same_to_the_last_bit_when_the_run_goes_on() {
    let here = tempfile::tempdir().unwrap();
    // 1/11, which a parser that rounds twice reads as another number.
    let args = ["demo", "--model", "demo", "--method", "vispruner", "--important-ratio", "0.09090909090909091"];
    let args = [&args[..], &["--tokens", "64", "--limit", "4"]].concat();
    let (code, first, stderr) = eval(here.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    let (code, again, stderr) = eval(here.path(), &args);
    assert_eq!((code, again), (0, first), "{stderr}");
}

/// Files that nobody reads, which other programs put into a shared cache, change no setting.
#[test]
fn a_run_goes_on_beside_files_that_are_not_read() {
    let here = tempfile::tempdir().unwrap();
    let model = here.path().join("model");
    crate::common::copy_folder(&fixture("tiny-llava-1.5/llava-1.5-tiny-hf"), &model);
    let clip = fixture("tiny-llava-1.5/clip-vit-tiny-patch14-336");
    let args = ["demo", "--model", "model", "--method", "cdpruner", "--clip", "clip", "--tokens", "64"];
    crate::common::copy_folder(&clip, &here.path().join("clip"));
    let (code, _, stderr) = eval(here.path(), &[&args[..], &["--limit", "2"]].concat());
    assert_eq!(code, 0, "{stderr}");
    std::fs::write(model.join("processor_config.json"), "{}").unwrap();
    std::fs::write(here.path().join("clip/vocab.json"), "{}").unwrap();
    let (code, _, stderr) = eval(here.path(), &[&args[..], &["--limit", "4"]].concat());
    assert_eq!(code, 0, "{stderr}");
    // Another text side is another run.
    let weights = here.path().join("clip/pytorch_model.bin");
    let mut bytes = std::fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let (code, _, stderr) = eval(here.path(), &[&args[..], &["--limit", "6"]].concat());
    assert!(code == 1 && stderr.contains("clip_sha256"), "{stderr}");
}

/// LLaVA-NeXT's own checkpoints bring their tower along, and name another's for its config.
#[test]
fn a_tower_whose_weights_are_not_read_may_lack_them() {
    let here = tempfile::tempdir().unwrap();
    for folder in ["clip-vit-tiny-patch14-336", "llava-v1.6-vicuna-tiny"] {
        crate::common::copy_folder(&fixture("tiny-llava-1.6").join(folder), &here.path().join(folder));
    }
    std::fs::remove_file(here.path().join("clip-vit-tiny-patch14-336/pytorch_model.bin")).unwrap();
    let args = ["demo", "--model", "llava-v1.6-vicuna-tiny", "--tokens", "9", "--limit", "1"];
    let (code, _, stderr) = eval(here.path(), &args);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn the_built_in_checkpoint_is_no_folder_of_its_name() {
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("demo")).unwrap();
    let (code, _, stderr) = eval(here.path(), &["demo", "--model", "demo", "--tokens", "64", "--limit", "2"]);
    assert_eq!(code, 0, "{stderr}");
    let config = std::fs::read_to_string(here.path().join("runs/demo-demo-fastervlm-64/config.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&config).unwrap()["model"], "demo");
}

#[test]
fn a_question_that_is_too_long_is_named() {
    let here = tempfile::tempdir().unwrap();
    let data = here.path().join("data");
    std::fs::create_dir_all(data.join("images")).unwrap();
    std::fs::copy(fixture("tiny-llava-1.5/images/boat_123x90.png"), data.join("images/boat.png")).unwrap();
    let line = |id: &str, text: &str| json!({"question_id": id, "image": "boat.png", "text": text}).to_string() + "\n";
    let questions = [line("v1_0", "What is it?"), line("v1_1", &"Why? ".repeat(5_000))].concat();
    std::fs::write(data.join("llava-mm-vet.jsonl"), questions).unwrap();
    let model = fixture("tiny-llava-1.5/llava-1.5-tiny-hf");
    let args = ["mm-vet", "--model", model.to_str().unwrap(), "--tokens", "16", "--data", "data"];
    let (code, _, stderr) = eval(here.path(), &args);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("v1_1") && stderr.contains("tokens"), "{stderr}");
    // Lengths are looked at before the first answer is made.
    let run = here.path().join("runs/mm-vet-llava-1.5-tiny-hf-fastervlm-16/answers.jsonl");
    assert_eq!(std::fs::read_to_string(run).unwrap_or_default(), "");
}

/// A download that was bad is found out before the first question, and mended.
#[test]
fn an_image_that_was_mended_lets_the_run_begin() {
    let here = tempfile::tempdir().unwrap();
    let data = here.path().join("data");
    std::fs::create_dir_all(data.join("images")).unwrap();
    let line = |i: usize| {
        json!({"question_id": format!("v1_{i}"), "image": format!("{i}.png"), "text": "What is it?"}).to_string() + "\n"
    };
    std::fs::write(data.join("llava-mm-vet.jsonl"), (0..4).map(line).collect::<String>()).unwrap();
    let boat = std::fs::read(fixture("tiny-llava-1.5/images/boat_123x90.png")).unwrap();
    let write = |i: usize, bytes: &[u8]| std::fs::write(data.join(format!("images/{i}.png")), bytes).unwrap();
    (0..3).for_each(|i| write(i, &boat[..if i == 1 { boat.len() / 2 } else { boat.len() }]));
    let args = ["mm-vet", "--model", "demo", "--tokens", "16", "--data", "data"];
    // One image is not there, which is no matter for the first questions.
    let (code, _, stderr) = eval(here.path(), &args);
    assert!(code == 1 && stderr.contains("3.png") && stderr.contains("1 of 4 questions are missing"), "{stderr}");
    let args = [&args[..], &["--limit", "3"]].concat();
    let (code, _, stderr) = eval(here.path(), &args);
    assert!(code == 1 && stderr.contains("1.png: the image is cut short"), "{stderr}");
    write(1, &boat);
    let (code, _, stderr) = eval(here.path(), &args);
    assert_eq!(code, 0, "{stderr}");
    // What makes other answers is named, and nothing else.
    let other = ["--seed", "3", "--dtype", "f32", "--limit", "2", "--protocol", "lmms-eval"];
    let (code, _, stderr) = eval(here.path(), &[&args[..7], &other].concat());
    let lines: Vec<&str> = stderr.lines().skip(1).map(str::trim).collect();
    assert_eq!((code, lines), (1, vec!["dtype: there null, asked \"f32\"", "seed: there 0, asked 3"]), "{stderr}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_path_that_settings_cannot_hold_is_refused() {
    use std::os::unix::ffi::OsStrExt;

    let here = tempfile::tempdir().unwrap();
    let data = here.path().join(std::ffi::OsStr::from_bytes(b"d\xff"));
    std::fs::create_dir_all(data.join("images")).unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "mm-vet", "--model", "demo", "--tokens", "9", "--data"]).arg(&data).current_dir(here.path());
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("is not UTF-8"), "{stderr}");
    assert!(!here.path().join("runs").exists());
}
