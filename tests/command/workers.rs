//! A run with workers leaves what a run of one process leaves, whatever becomes of the workers.

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::cli::secateur;

const NAME: &str = "demo-demo-cdpruner-64";
const EVAL: [&str; 6] = ["eval", "demo", "--model", "demo", "--method", "cdpruner"];

fn eval(out: &Path, more: &[&str]) -> (i32, String, String) {
    secateur(&[&EVAL[..], &["--tokens", "64", "--out", out.to_str().unwrap()], more].concat())
}

fn file(out: &Path, name: &str) -> String {
    std::fs::read_to_string(out.join(NAME).join(name)).unwrap()
}

#[test]
fn answers_and_score_are_those_of_one_process() {
    let (one, several) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (code, stdout, stderr) = eval(one.path(), &["--limit", "21"]);
    assert_eq!(code, 0, "{stderr}");
    for more in [&["--workers", "3"][..], &["--devices", "0", "--workers", "2", "--batch-size", "4", "--force"]] {
        let (code, found, stderr) = eval(several.path(), &[&["--limit", "21"], more].concat());
        assert_eq!((code, &found), (0, &stdout), "{stderr}");
        for name in ["answers.jsonl", "config.json"] {
            assert_eq!(file(several.path(), name), file(one.path(), name), "{more:?}");
        }
        let metrics = |out: &Path| {
            let mut metrics: Value = serde_json::from_str(&file(out, "metrics.json")).unwrap();
            let cost = metrics.as_object_mut().unwrap().remove("cost").unwrap();
            (metrics, cost)
        };
        let ((expected, alone), (found, shared)) = (metrics(one.path()), metrics(several.path()));
        assert_eq!(found, expected, "{more:?}");
        assert_eq!((alone["questions"].as_u64(), alone["visual_tokens"].as_f64()), (Some(21), Some(64.0)));
        assert_eq!((shared["questions"].as_u64(), shared["answered"].as_u64()), (Some(21), Some(21)));
        assert!(alone["peak_bytes"].as_u64() > Some(1 << 20) && alone["workers"].is_null(), "{alone}");
        assert!(shared["workers"].as_u64() >= Some(2) && shared["backend"] == "flex", "{shared}");
        for time in ["ttft_ms_median", "ttft_ms_p95", "answering_s", "wall_s", "visual_tokens_before"] {
            assert!([&alone, &shared].iter().all(|cost| cost[time].as_f64() > Some(0.0)), "{time}: {alone} {shared}");
        }
        assert_eq!(file(several.path(), "times.jsonl").lines().count(), 22);
    }
    // More questions: only those that are left are asked.
    assert_eq!(eval(one.path(), &["--limit", "30"]).0, 0);
    assert_eq!(eval(several.path(), &["--limit", "30", "--workers", "2"]).0, 0);
    assert_eq!(file(several.path(), "answers.jsonl"), file(one.path(), "answers.jsonl"));
}

#[test]
fn sweeps_and_analyses_are_those_of_one_process() {
    let (one, several) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sweep = |out: &Path, more: &[&str]| {
        let out = out.to_str().unwrap();
        let fixed = ["sweep", "demo", "--model", "demo", "--method", "fastervlm,divprune", "--budgets", "64,29"];
        let (code, _, stderr) = secateur(&[&fixed[..], &["--limit", "10", "--out", out], more].concat());
        assert_eq!(code, 0, "{stderr}");
        // All but the times, and where they were measured.
        let mut table = csv::Reader::from_path(Path::new(out).join("sweep-demo.csv")).unwrap();
        let heads: Vec<String> = table.headers().unwrap().iter().map(str::to_owned).collect();
        let rows = table.records().map(|row| {
            let row = row.unwrap();
            let cells = heads.iter().zip(row.iter()).filter(|(head, _)| !["ttft_ms", "place"].contains(&head.as_str()));
            cells.map(|(_, cell)| cell.to_owned()).collect::<Vec<_>>()
        });
        rows.collect::<Vec<_>>()
    };
    assert_eq!(sweep(several.path(), &["--workers", "2"]), sweep(one.path(), &[]));

    let analyze = |out: &Path, more: &[&str]| {
        let paths = ["analysis/instructions.jsonl", "tiny-llava-1.5", "tiny-llava-1.5/llava-v1.5-tiny"];
        let paths = paths.map(|name| crate::common::fixture(name).to_str().unwrap().to_owned());
        let [data, images, model] = paths.each_ref().map(String::as_str);
        let fixed = ["analyze", "attention-shift", data, "--images", images, "--model", model];
        let (code, _, stderr) = secateur(&[&fixed[..], &["--out", out.to_str().unwrap()], more].concat());
        assert_eq!(code, 0, "{stderr}");
        std::fs::read(out.join("attention-shift.safetensors")).unwrap()
    };
    assert!(analyze(several.path(), &["--workers", "2"]) == analyze(one.path(), &[]));
}

#[test]
fn what_no_device_can_do_is_refused() {
    let out = tempfile::tempdir().unwrap();
    let (code, _, stderr) = eval(out.path(), &["--devices", "0,7"]);
    assert!(code == 1 && stderr.contains("has no device 7: it has 1") && stderr.contains("list devices"), "{stderr}");
    let (code, _, stderr) = eval(out.path(), &["--device", "3"]);
    assert!(code == 1 && stderr.contains("has no device 3"), "{stderr}");
    for usage in
        [&["--devices", "gpu"][..], &["--devices", "0,0"], &["--workers", "0"], &["--devices", "0", "--device", "0"]]
    {
        assert_eq!(eval(out.path(), usage).0, 2, "{usage:?}");
    }
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none(), "a run that cannot start left something behind");
    let (code, stdout, _) = secateur(&["list", "devices", "--json"]);
    let listed: Value = serde_json::from_str(&stdout).unwrap();
    let device = &listed["devices"][0];
    assert!(code == 0 && device["backend"] == "flex" && device["device"] == 0 && device["kind"] == "CPU", "{stdout}");
}

/// An error of a question has the words that it has in one process, and ends all.
#[test]
fn an_error_of_a_question_is_that_of_one_process() {
    let out = tempfile::tempdir().unwrap();
    let data = tempfile::tempdir().unwrap();
    let question =
        |id: usize, text: &str| format!("{{\"question_id\": {id}, \"image\": \"a.png\", \"text\": \"{text}\"}}\n");
    std::fs::create_dir_all(data.path().join("images")).unwrap();
    let image = crate::common::fixture("tiny-llava-1.5/images/boat_123x90.png");
    std::fs::copy(image, data.path().join("images/a.png")).unwrap();
    let questions = [question(1, "What?"), question(2, "<image> <image> Which?"), question(3, "Where?")].concat();
    std::fs::write(data.path().join("llava-mm-vet.jsonl"), questions).unwrap();
    let (out, data) = (out.path().to_str().unwrap(), data.path().to_str().unwrap());
    let run = |more: &[&str]| {
        let fixed = ["eval", "mm-vet", "--model", "demo", "--data", data, "--out", out];
        let (code, _, stderr) = secateur(&[&fixed[..], more].concat());
        (code, stderr.lines().last().unwrap_or_default().to_owned())
    };
    let alone = run(&[]);
    assert!(alone.0 == 1 && alone.1.contains("question 2"), "{alone:?}");
    assert_eq!(run(&["--workers", "2", "--force"]), alone);
}

/// An error in loading the model is told as by one process, and nothing is left behind.
#[test]
fn a_model_that_cannot_be_loaded_is_refused_as_by_one_process() {
    let (model, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    crate::common::copy_folder(&crate::common::fixture("tiny-llava-1.5/llava-1.5-tiny-hf"), model.path());
    let config = model.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    settings["text_config"]["num_hidden_layers"] = 5.into();
    std::fs::write(config, settings.to_string()).unwrap();
    let run = |more: &[&str]| {
        let (model, out) = (model.path().to_str().unwrap(), out.path().to_str().unwrap());
        let fixed = ["eval", "demo", "--model", model, "--limit", "4", "--out", out];
        let (code, _, stderr) = secateur(&[&fixed[..], more].concat());
        (code, stderr[stderr.find("error: ").unwrap()..].to_owned())
    };
    let alone = run(&[]);
    assert!(alone.0 == 1 && alone.1.contains("layers.4"), "{alone:?}");
    assert_eq!(run(&["--workers", "2"]), alone);
    assert!(std::fs::read_dir(out.path()).unwrap().next().is_none());
}

#[cfg(target_os = "linux")]
mod killed {
    use super::*;

    fn start(out: &Path) -> Child {
        let mut command = std::process::Command::new(assert_cmd::cargo::cargo_bin("secateur"));
        command.args(EVAL).args(["--tokens", "64", "--limit", "60", "--workers", "2", "--out"]).arg(out);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// The processes that `parent` started.
    fn children(parent: u32) -> Vec<u32> {
        let parent_of = |pid: u32| {
            let stat = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat"))).ok()?;
            stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok()
        };
        let all =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|&pid| parent_of(pid) == Some(parent)).collect()
    }

    fn kill(pid: u32) {
        std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("kill -9 {pid}"))
            .stderr(Stdio::null())
            .status()
            .unwrap();
    }

    /// Waits for a child that is none of `old`.
    fn new_child(parent: u32, old: &[u32]) -> u32 {
        let start = Instant::now();
        loop {
            if let Some(pid) = children(parent).into_iter().find(|pid| !old.contains(pid)) {
                return pid;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no worker was started");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn whole(out: &Path) -> String {
        assert_eq!(eval(out, &["--limit", "60"]).0, 0);
        file(out, "answers.jsonl")
    }

    fn stderr_of(child: Child) -> (bool, String) {
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    #[test]
    fn a_worker_is_started_again_and_its_second_end_costs_the_others_its_questions() {
        let (one, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let child = start(out.path());
        let first = new_child(child.id(), &[]);
        let other = new_child(child.id(), &[first]);
        kill(first);
        kill(new_child(child.id(), &[first, other]));
        let (success, stderr) = stderr_of(child);
        assert!(success, "{stderr}");
        assert!(stderr.contains("killed by signal 9; it is started again"), "{stderr}");
        assert!(stderr.contains("its questions go to the other 1 worker"), "{stderr}");
        assert_eq!(file(out.path(), "answers.jsonl"), whole(one.path()));
    }

    #[test]
    fn a_run_without_workers_ends_with_a_sentence_and_goes_on() {
        let (one, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child = start(out.path());
        while child.try_wait().unwrap().is_none() {
            children(child.id()).into_iter().for_each(kill);
        }
        let (success, stderr) = stderr_of(child);
        assert!(!success && stderr.contains("every worker ended") && stderr.contains("goes on from there"), "{stderr}");
        assert_eq!(eval(out.path(), &["--limit", "60", "--workers", "2"]).0, 0);
        assert_eq!(file(out.path(), "answers.jsonl"), whole(one.path()));
    }

    #[test]
    fn workers_end_with_the_run_and_their_answers_are_kept() {
        let (one, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut child = start(out.path());
        let answers = out.path().join(NAME).join("answers.jsonl");
        let begun = Instant::now();
        while std::fs::metadata(&answers).map_or(0, |file| file.len()) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "no answer came");
            std::thread::sleep(Duration::from_millis(1));
        }
        let workers = children(child.id());
        child.kill().unwrap();
        child.wait().unwrap();
        let ended = |pid: &u32| !PathBuf::from(format!("/proc/{pid}/exe")).exists();
        while !workers.iter().all(ended) {
            assert!(begun.elapsed() < Duration::from_secs(60), "a worker outlives its run");
            std::thread::sleep(Duration::from_millis(1));
        }
        let kept = file(out.path(), "answers.jsonl");
        assert_eq!(eval(out.path(), &["--limit", "60", "--workers", "2"]).0, 0);
        let all = file(out.path(), "answers.jsonl");
        assert!(all.starts_with(&kept));
        assert_eq!(all, whole(one.path()));
    }
}
