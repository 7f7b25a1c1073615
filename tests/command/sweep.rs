//! `secateur sweep`: a table of runs, each as `eval` would leave it.

use assert_cmd::Command;
use serde_json::Value;

fn secateur(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("secateur").unwrap().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn every_combination_has_a_row_and_a_run_folder() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let args = [
        "sweep",
        "demo",
        "--model",
        "demo",
        "--method",
        "fastervlm,random",
        "--budgets",
        "64,9,64",
        "--limit",
        "8",
        "--out",
        folder,
        "--json",
    ];
    let (code, stdout, stderr) = secateur(&args);
    assert_eq!(code, 0, "{stderr}");
    let table: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let names: Vec<String> =
        rows.iter().map(|row| format!("{}-{}", row["method"].as_str().unwrap(), row["tokens"])).collect();
    assert_eq!(names, ["none-null", "fastervlm-64", "random-64", "fastervlm-9", "random-9"]);
    assert_eq!(rows[0]["percent"], 100.0);
    assert!(table["rule"].as_str().unwrap().contains("mean over benchmarks"));
    for name in ["demo-demo-none-all", "demo-demo-fastervlm-64", "demo-demo-random-9"] {
        let metrics = std::fs::read_to_string(out.path().join(name).join("metrics.json")).unwrap();
        assert!(metrics.contains("checkpoint_sha256"), "{metrics}");
    }
    let csv = std::fs::read_to_string(out.path().join("sweep-demo.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 5, "{csv}");
    assert!(out.path().join("sweep-demo-demo.svg").is_file() && out.path().join("sweep-demo-demo.png").is_file());
    assert_eq!((rows[1]["run"].as_str(), rows[1]["n"].as_u64()), (Some("demo-demo-fastervlm-64"), Some(8)));
    assert!(table["averages"].as_array().unwrap().is_empty(), "an average of one benchmark");

    // Again, nothing is run: the answers are there.
    let (code, again, stderr) = secateur(&args);
    assert_eq!((code, again), (0, stdout));
    assert!(!stderr.contains("fastervlm-64"), "{stderr}");

    // A run that is there in part, with more answers than are asked for now, is scored as far as it is asked for.
    let run = out.path().join("demo-demo-fastervlm-64");
    std::fs::remove_file(run.join("metrics.json")).unwrap();
    let fewer: Vec<&str> = args.iter().map(|&arg| if arg == "8" { "4" } else { arg }).collect();
    let (code, _, stderr) = secateur(&fewer);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("note: demo: 4 of 400 questions"), "{stderr}");
    let lines = std::fs::read_to_string(run.join("answers.jsonl")).unwrap().lines().count();
    assert_eq!((lines, run.join("metrics.json").exists()), (8, false));
    let (code, _, stderr) = secateur(&[&args[..], &["--force", "--batch-size", "4"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("fastervlm-64") && run.join("metrics.json").exists(), "{stderr}");
}

#[test]
fn what_cannot_be_swept_is_said_before_the_model_is_looked_for() {
    for (args, expected) in [
        (&["nosuch", "--budgets", "9"][..], "unknown benchmark `nosuch`"),
        (&["demo", "--budgets", "9", "--batch-size", "0"], "--batch-size 0"),
        (&["demo", "--budgets", "9", "--backend", "tpu"], "unknown backend `tpu`"),
        (&["mme", "--budgets", "9", "--data", "/nowhere/mme"], "/nowhere/mme"),
    ] {
        let (code, _, stderr) = secateur(&[&["sweep", "--model", "/nowhere/model"], args].concat());
        let expected_code = if expected.starts_with('/') { 1 } else { 2 };
        assert!(code == expected_code && stderr.contains(expected) && !stderr.contains("/nowhere/model"), "{stderr}");
    }
}

#[test]
fn a_sweep_without_budgets_says_how_to_give_them() {
    let (code, _, stderr) = secateur(&["sweep", "demo", "--model", "demo"]);
    assert!(code == 2 && stderr.contains("--budgets"), "{stderr}");
}
