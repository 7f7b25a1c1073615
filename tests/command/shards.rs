//! A run split over machines gives the answers and the score of the whole run.

use std::path::Path;

use assert_cmd::Command;
use serde_json::{Value, json};

const QUESTIONS: &str = "14";
const NAME: &str = "demo-demo-random-32";

fn secateur(environment: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    for name in ["SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT", "JOB_COMPLETION_INDEX"] {
        command.env_remove(name);
    }
    let output = command.envs(environment.iter().copied()).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn eval(out: &Path, environment: &[(&str, &str)], extra: &[&str]) -> (i32, String, String) {
    let out = out.to_str().unwrap();
    let fixed = ["eval", "demo", "--model", "demo", "--method", "random", "--tokens", "32", "--out", out];
    let limit = if extra.contains(&"--limit") { &[][..] } else { &["--limit", QUESTIONS] };
    secateur(environment, &[&fixed, limit, extra].concat())
}

fn merge(out: &Path, shards: &[&str], extra: &[&str]) -> (i32, String, String) {
    let folders: Vec<String> =
        shards.iter().map(|shard| out.join(format!("{NAME}.shard-{shard}")).to_str().unwrap().to_owned()).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    secateur(&[], &[&["merge"], &folders[..], extra].concat())
}

fn answers(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("answers.jsonl")).unwrap()
}

#[test]
fn merged_shards_are_the_whole_run() {
    let (whole, split) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = eval(whole.path(), &[], &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let score: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();

    let (code, stdout, stderr) = eval(split.path(), &[], &["--shard", "0/3", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let part: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(part, json!({"schema": 1, "benchmark": "demo", "protocol": "llava", "n": 4, "metrics": {}}));
    let slurm = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
    let (code, stdout, stderr) = eval(split.path(), &slurm, &["--shard", "auto"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("SLURM_ARRAY_TASK_ID") && stdout.contains("secateur merge"), "{stdout}{stderr}");

    let (code, _, stderr) = merge(split.path(), &["0-of-3", "1-of-3"], &[]);
    assert!(code == 1 && stderr.contains("shard 2 of 3 is missing"), "{stderr}");
    let kubernetes = [("JOB_COMPLETION_INDEX", "2"), ("JOB_COMPLETIONS", "3")];
    assert_eq!(eval(split.path(), &kubernetes, &["--shard", "auto"]).0, 0);
    let (code, _, stderr) = merge(split.path(), &["0-of-3", "1-of-3", "1-of-3", "2-of-3"], &[]);
    assert!(code == 1 && stderr.contains("there twice"), "{stderr}");

    // A shard that was stopped is refused, and goes on where it stopped.
    let third = split.path().join(format!("{NAME}.shard-2-of-3"));
    let all = answers(&third);
    let first = &all[..=all.find('\n').unwrap()];
    std::fs::write(third.join("answers.jsonl"), first).unwrap();
    let (code, _, stderr) = merge(split.path(), &["0-of-3", "1-of-3", "2-of-3"], &[]);
    assert!(code == 1 && stderr.contains("1 of 5 questions are answered"), "{stderr}");
    assert_eq!(eval(split.path(), &kubernetes, &["--shard", "auto"]).0, 0);

    let (code, stdout, stderr) = merge(split.path(), &["2-of-3", "0-of-3", "1-of-3"], &["--json"]);
    assert_eq!(code, 0, "{stderr}");
    let merged: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!(merged, score);
    assert_eq!(answers(&split.path().join(NAME)), answers(&whole.path().join(NAME)));
    let metrics = |out: &Path| {
        let text = std::fs::read_to_string(out.join(NAME).join("metrics.json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let mut metrics = [metrics(split.path()), metrics(whole.path())];
    // The shards' times are the merged run's.
    let costs = metrics.each_mut().map(|metrics| metrics.as_object_mut().unwrap().remove("cost").unwrap());
    assert!(costs.iter().all(|cost| cost["questions"] == 14 && cost["visual_tokens"] == 32.0), "{costs:?}");
    assert_eq!(metrics[0], metrics[1]);
    for key in ["checkpoint_sha256", "data_sha256"] {
        assert_eq!(metrics[0]["run"][key].as_str().map(str::len), Some(64), "{key}");
    }

    // The same questions can be the shard's by another limit, which it then has.
    let (code, _, stderr) = eval(split.path(), &[], &["--shard", "0/3", "--limit", "13"]);
    assert_eq!(code, 0, "{stderr}");
    let limit = std::fs::read_to_string(split.path().join(format!("{NAME}.shard-0-of-3/config.json"))).unwrap();
    assert!(limit.contains("\"limit\": 13"), "{limit}");
    let (code, _, stderr) = eval(split.path(), &[], &["--shard", "0/3"]);
    assert_eq!(code, 0, "{stderr}");

    // A merge that is refused costs nothing that was there.
    let merged = split.path().join(NAME);
    let other = answers(&merged).replacen("\"text\":\"", "\"text\":\"x", 1);
    std::fs::write(merged.join("answers.jsonl"), &other).unwrap();
    let score = std::fs::read(merged.join("metrics.json")).unwrap();
    for (extra, why) in [(&[][..], "other answers"), (&["--judge-url", "http://127.0.0.1:9"][..], "needs no judge")] {
        let (code, _, stderr) = merge(split.path(), &["0-of-3", "1-of-3", "2-of-3"], extra);
        assert!(code == 1 && stderr.contains(why), "{stderr}");
        assert_eq!(
            (answers(&merged), std::fs::read(merged.join("metrics.json")).unwrap()),
            (other.clone(), score.clone())
        );
    }
}

#[test]
fn shards_of_different_runs_are_not_merged() {
    let out = tempfile::tempdir().unwrap();
    assert_eq!(eval(out.path(), &[], &["--shard", "0/2"]).0, 0);
    assert_eq!(eval(out.path(), &[], &["--shard", "1/2", "--temperature", "0.5"]).0, 0);
    let (code, _, stderr) = merge(out.path(), &["0-of-2", "1-of-2"], &[]);
    assert!(code == 1 && stderr.contains("not shards of one run"), "{stderr}");
}

#[test]
fn shards_that_cannot_be_are_usage_errors() {
    let out = tempfile::tempdir().unwrap();
    assert_eq!(eval(out.path(), &[], &["--shard", "3/3"]).0, 2);
    let (code, _, stderr) = eval(out.path(), &[("JOB_COMPLETION_INDEX", "1")], &["--shard", "auto"]);
    assert!(code == 1 && stderr.contains("JOB_COMPLETIONS"), "{stderr}");
    let (code, _, stderr) = eval(out.path(), &[], &["--shard", "auto"]);
    assert!(code == 1 && stderr.contains("--shard I/N"), "{stderr}");
}

/// An array over methods or seeds asks every question in every task.
#[test]
fn an_array_is_no_shard_unless_asked_for() {
    let out = tempfile::tempdir().unwrap();
    let slurm = [("SLURM_ARRAY_TASK_ID", "2"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
    let (code, _, stderr) = eval(out.path(), &slurm, &[]);
    assert!(code == 0 && stderr.contains("--shard auto"), "{stderr}");
    assert_eq!(answers(&out.path().join(NAME)).lines().count().to_string(), QUESTIONS);
}

/// Splits a run's answers as a kill leaves them: the first `written` in their file, and some of those after them in the other, from the
/// number that is next.
fn kill(folder: &Path, all: &str, written: usize, waiting: &[usize]) {
    let lines: Vec<&str> = all.lines().collect();
    let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let ahead: Vec<String> = waiting.iter().map(|&i| format!("{{\"question\":{i},\"answer\":{}}}", lines[i])).collect();
    std::fs::write(
        folder.join("answers.jsonl"),
        text(&lines[..written].iter().map(|&line| line.to_owned()).collect::<Vec<_>>()),
    )
    .unwrap();
    std::fs::write(folder.join("answers-ahead.jsonl"), text(&ahead) + "{\"question\": 1").unwrap();
    let _ = std::fs::remove_file(folder.join("metrics.json"));
}

/// Answers to later questions about an image wait in a file of their own, and a kill may leave them there when their turn has come.
#[test]
fn answers_that_wait_are_taken_over() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().join(NAME);
    let waits = || folder.join("answers-ahead.jsonl").exists();
    assert_eq!(eval(out.path(), &[], &[]).0, 0);
    let all = answers(&folder);
    for (written, waiting) in [(3, &[3, 4, 9][..]), (0, &[0]), (0, &[5, 6]), (14, &[]), (9, &[9, 10, 11, 12, 13])] {
        kill(&folder, &all, written, waiting);
        let (code, _, stderr) = eval(out.path(), &[], &[]);
        assert_eq!((code, answers(&folder), waits()), (0, all.clone(), false), "{written} and {waiting:?}: {stderr}");
    }

    // Other settings would make other answers, even if all that is there waits.
    kill(&folder, &all, 0, &[5]);
    let (code, _, stderr) = eval(out.path(), &[], &["--temperature", "1"]);
    assert!(code == 1 && stderr.contains("a run with other settings"), "{stderr}");

    // A shorter run leaves what a longer one has paid for.
    kill(&folder, &all, 2, &[3, 10]);
    let (code, _, stderr) = eval(out.path(), &[], &["--limit", "6"]);
    assert!(code == 0 && waits(), "{stderr}");
    assert_eq!(answers(&folder).lines().count(), 6);
    assert_eq!(eval(out.path(), &[], &[]).0, 0);
    assert_eq!((answers(&folder), waits()), (all.clone(), false));

    // Shards are merged into what is left of a whole run.
    for shard in ["0/2", "1/2"] {
        assert_eq!(eval(out.path(), &[], &["--shard", shard]).0, 0);
    }
    kill(&folder, &all, 2, &[3, 4, 10]);
    let (code, _, stderr) = merge(out.path(), &["0-of-2", "1-of-2"], &[]);
    assert_eq!((code, answers(&folder), waits()), (0, all, false), "{stderr}");
}
