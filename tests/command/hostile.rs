//! Files that someone else made, to do harm or by accident: nothing is written where the user did not say so, nothing hangs, and nothing that
//! a terminal obeys reaches it.

use std::{path::Path, time::Duration};

use assert_cmd::Command;

use super::cli::{BOAT, path, secateur};
use crate::common::hub::Hub;

/// A run of the built-in checkpoint, of two questions, below `out`.
fn run(out: &Path, more: &[&str]) {
    let out = out.to_str().unwrap();
    let args = ["eval", "demo", "--model", "demo", "--method", "grid", "--tokens", "16", "--limit", "2", "--out", out];
    let (code, _, stderr) = secateur(&[&args[..], more].concat());
    assert_eq!(code, 0, "{stderr}");
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_merged_run_stays_below_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b/runs");
    let shards = ["0", "1"].map(|shard| {
        run(&out, &["--shard", &format!("{shard}/2")]);
        out.join(format!("demo-demo-grid-16.shard-{shard}-of-2"))
    });
    for name in ["x/../../../evil", "/tmp/evil", "..", ""] {
        let texts = shards.each_ref().map(|shard| std::fs::read_to_string(shard.join("config.json")).unwrap());
        for shard in &shards {
            edit(&shard.join("config.json"), "\"method\": \"grid\"", &format!("\"method\": \"{name}\""));
        }
        let (code, _, stderr) = secateur(&["merge", shards[0].to_str().unwrap(), shards[1].to_str().unwrap()]);
        assert!(code == 1 && stderr.contains("config.json") && stderr.contains("method"), "{stderr}");
        shards.iter().zip(texts).for_each(|(shard, text)| std::fs::write(shard.join("config.json"), text).unwrap());
    }
    let there: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["a"]);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 2);
}

#[cfg(unix)]
#[test]
fn the_built_in_checkpoint_follows_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let ask = || {
        let mut command = Command::cargo_bin("secateur").unwrap();
        command.env("XDG_CACHE_HOME", folder.path()).env("TMPDIR", folder.path());
        let args = ["ask", "--model", "demo", "--tokens", "16", "--max-new-tokens", "1", &path(BOAT), "Why?"];
        command.args(args).timeout(Duration::from_secs(60)).output().unwrap()
    };
    assert!(ask().status.success());
    let secateur = folder.path().join("secateur");
    let unpacked = std::fs::read_dir(&secateur).unwrap().next().unwrap().unwrap().path();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "mine").unwrap();
    let config = unpacked.join("config.json");
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink(&victim, &config).unwrap();
    // It goes to another folder, or refuses.
    ask();
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "mine");
}

#[cfg(unix)]
#[test]
fn a_pipe_in_place_of_a_file_hangs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for args in [
        &["ask", pipe, "Why?", "--model", "demo", "--tokens", "16"][..],
        &["score", "pope", pipe],
        &["prune", pipe, "--method", "fastervlm", "--tokens", "4"],
        &["ask", &path(BOAT), "Why?", "--model", pipe],
    ] {
        let output =
            Command::cargo_bin("secateur").unwrap().args(args).timeout(Duration::from_secs(60)).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("pipe.png"), "{args:?}");
    }
}

#[test]
fn what_a_terminal_obeys_is_spelt_out() {
    let name = "a\u{1b}]0;title\u{7}\u{9b}31m.png";
    for args in [
        &["ask", name, "Why?", "--model", "demo", "--tokens", "16"][..],
        &["ask", &path(BOAT), "Why?", "--model", name],
        &["score", "pope", name],
        &["merge", name],
        &["report", name],
        &["list", name],
        &["bench", "--budgets", name],
    ] {
        let (code, stdout, stderr) = secateur(args);
        assert!(code > 0 && !stderr.is_empty());
        for text in [stdout, stderr] {
            assert!(!text.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{args:?}: {text:?}");
        }
    }
}

#[test]
fn a_tall_image_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let tall = folder.path().join("tall.png");
    image::RgbImage::from_fn(1, 65_535, |_, y| image::Rgb([y as u8, 0, 0])).save(&tall).unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    let args = ["ask", "--model", "demo", "--tokens", "16", "--max-new-tokens", "1", tall.to_str().unwrap(), "Why?"];
    // It took 20 s and more, many times that in a test on a busy machine.
    let output = command.args(args).timeout(Duration::from_secs(60)).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn secrets_in_a_judges_address_are_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let labels = r#"{"v1_0": {"question": "What?", "answer": "x", "capability": ["rec"]}}"#;
    std::fs::write(folder.path().join("mm-vet.json"), labels).unwrap();
    let answers = folder.path().join("answers.jsonl");
    std::fs::write(&answers, "{\"question_id\": 0, \"text\": \"x\"}\n").unwrap();
    let server = crate::common::judge::Server::start(|request, _| {
        (401, format!("no such key: {} of user SECRET", request["key"].as_str().unwrap()))
    });
    for url in [
        server.url.replace("http://", "http://user:SECRET@"),
        "user:SECRET@host".to_owned(),
        "ftp://u:SECRET@h".to_owned(),
    ] {
        let args = ["score", "mm-vet", answers.to_str().unwrap(), "--data", folder.path().to_str().unwrap()];
        let (code, stdout, stderr) = secateur(&[&args[..], &["--judge-url", &url]].concat());
        assert_eq!(code, 1);
        assert!(!stderr.contains("SECRET") && !stdout.contains("SECRET"), "{stderr}");
    }
}

#[test]
fn a_report_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("runs");
    run(&out, &[]);
    let own = out.join("demo-demo-grid-16");
    edit(&own.join("config.json"), "\"model\": \"demo\"", "\"model\": \"someone/model\"");
    let hub = Hub::start();
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.env("HF_ENDPOINT", &hub.endpoint).env("HF_HOME", folder.path()).arg("report").arg(&own);
    let output = command.arg("--out").arg(folder.path().join("page")).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("someone/model"));
    assert_eq!(hub.requests(), Vec::<String>::new());
}
