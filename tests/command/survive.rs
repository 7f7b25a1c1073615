//! A run that is killed, again and again, gives the answers of one that was not; one that nobody reads goes on.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use assert_cmd::cargo::CommandCargoExt;

const ANSWERS: &str = "demo-demo-fastervlm-64/answers.jsonl";

fn eval(out: &Path) -> Command {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "demo", "--model", "demo", "--tokens", "64", "--limit", "80", "--out"]).arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_stderr_that_nobody_reads_ends_no_run() {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "demo", "--model", "demo", "--tokens", "64", "--limit", "4", "--out"]).arg(out.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    assert!(out.path().join("demo-demo-fastervlm-64/metrics.json").is_file());
}

#[test]
fn ten_kills_lose_nothing() {
    let (whole, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(eval(whole.path()).status().unwrap().success());
    let lines = |out: &Path| {
        let text = std::fs::read_to_string(out.join(ANSWERS)).unwrap_or_default();
        text.matches('\n').count()
    };
    let mut before = 0;
    for attempt in 0..10 {
        let mut child = eval(killed.path()).spawn().unwrap();
        // While it loads, and then at any point of its next answers.
        while attempt > 2 && lines(killed.path()) == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended after {before} answers");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(attempt));
        child.kill().unwrap();
        child.wait().unwrap();
        let now = lines(killed.path());
        assert!(now >= before, "{now} answers after {before}");
        before = now;
    }
    assert!((7..80).contains(&before), "{before} answers: nothing was interrupted");
    assert!(eval(killed.path()).status().unwrap().success());
    let read = |out: &Path| std::fs::read_to_string(out.join(ANSWERS)).unwrap();
    assert_eq!(read(killed.path()), read(whole.path()));
}
