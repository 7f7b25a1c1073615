//! Help, and what commands share: examples, JSON from everything that has a result, a goodbye on Ctrl-C.

use std::process::{Command, Stdio};

use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;

use super::cli::{last_json, secateur};
use crate::common::fixture;

#[test]
fn every_command_has_two_examples_of_itself() {
    let (code, help, _) = secateur(&["--help"]);
    assert_eq!(code, 0);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter(|line| !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| !["help", "man"].contains(name))
        .collect();
    assert!(commands.len() >= 18, "{commands:?}");
    for command in commands {
        let (_, help, _) = secateur(&["help", command]);
        let examples = help.lines().filter(|line| line.starts_with(&format!("  secateur {command}"))).count();
        assert_eq!(examples, 2, "{command}: {help}");
        assert!(help.contains("\nExamples:\n"), "{command}");
        assert!(help.lines().all(|line| line.chars().count() <= 100), "{command} has a long line");
    }
}

#[test]
fn drawings_pages_and_analyses_have_json() {
    let out = tempfile::tempdir().unwrap();
    let folder = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let image = fixture("tiny-llava-1.5/images/boat_123x90.png");
    let (drawn, runs, page) = (folder("drawn"), folder("runs"), folder("page"));
    let (code, stdout, stderr) = secateur(&[
        "show",
        "--model",
        "demo",
        "--method",
        "fastervlm,vispruner,fastv",
        "--tokens",
        "64",
        "--heat",
        "--jpeg",
        "--json",
        "--out",
        &drawn,
        image.to_str().unwrap(),
        "Is there a boat?",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let shown: Value = serde_json::from_str(&stdout).unwrap();
    let methods = shown["methods"].as_array().unwrap();
    assert_eq!((methods.len(), methods[0]["kept"][0].as_array().unwrap().len()), (3, 64));
    assert!(methods.iter().all(|row| row["text"].is_string() && row["ttft_ms"].as_f64() > Some(0.0)), "{shown}");
    assert_eq!(shown["files"].as_array().unwrap().len(), 5, "{shown}");
    assert!(std::fs::read(out.path().join("drawn/sheet.jpg")).unwrap().starts_with(&[0xff, 0xd8]));
    assert!(stderr.contains("vispruner ranks as fastervlm"), "{stderr}");
    assert!(stderr.contains("here is an image that is none of its drawings, and a question with boat"), "{stderr}");

    for method in ["none", "grid"] {
        assert_eq!(
            secateur(&["eval", "demo", "--method", method, "--tokens", "64", "--limit", "8", "--out", &runs]).0,
            0
        );
    }
    let (code, stdout, stderr) = secateur(&["report", &runs, "--gallery", "0", "--json", "--out", &page]);
    assert_eq!(code, 0, "{stderr}");
    assert!(last_json(&stdout)["sections"][0]["finding"].as_str().unwrap().contains(" tokens grid keeps "), "{stdout}");
}

#[test]
fn a_kept_patch_is_drawn_where_there_is_no_terminal() {
    let image = fixture("tiny-llava-1.5/images/boat_123x90.png");
    let asked = ["ask", "--model", "demo", "--tokens", "64", "--watch", image.to_str().unwrap(), "Is there a ring?"];
    let (code, _, stderr) = secateur(&asked);
    assert_eq!((code, stderr.matches('#').count(), stderr.matches('·').count()), (0, 64, 512 + 2), "{stderr}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_says_where_the_answers_are() {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "demo", "--method", "none", "--out"]).arg(out.path());
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let answers = out.path().join("demo-demo-none-all/answers.jsonl");
    while std::fs::metadata(&answers).map_or(0, |file| file.len()) == 0 {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(
        stderr.contains("interrupted: the answers so far are in") && stderr.contains("the same command goes on"),
        "{stderr}"
    );
}
