//! Runs beside each other: standard errors, paired comparisons, several seeds, tables as papers have them.

use std::path::Path;

use serde_json::Value;

use crate::cli::secateur;

fn eval(out: &Path, more: &[&str]) {
    let out = out.to_str().unwrap();
    let (code, _, stderr) = secateur(&[&["eval", "demo", "--limit", "60", "--out", out], more].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn runs_are_compared_on_the_questions_that_they_share() {
    let out = tempfile::tempdir().unwrap();
    eval(out.path(), &["--method", "none"]);
    eval(out.path(), &["--method", "random", "--tokens", "16"]);
    eval(out.path(), &["--method", "fastervlm", "--tokens", "128"]);
    let folder = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    let folders = ["demo-demo-none-all", "demo-demo-random-16", "demo-demo-fastervlm-128"].map(folder);
    let [none, random, fastervlm] = folders.each_ref().map(String::as_str);

    let (code, stdout, stderr) = secateur(&["compare", none, random, fastervlm, "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((found["schema"].as_u64(), found["rows"].as_array().unwrap().len()), (Some(1), 2));
    let [first, second] = [&found["rows"][0], &found["rows"][1]];
    let number = |row: &Value, name: &str| row[name].as_f64().unwrap();
    assert_eq!((first["n"].as_u64(), first["clear"].as_bool()), (Some(60), Some(true)), "{first}");
    assert!(
        (number(first, "difference") - (first["scores"][1].as_f64().unwrap() - first["scores"][0].as_f64().unwrap()))
            .abs()
            < 1e-9
    );
    assert!(first["interval"][1].as_f64().unwrap() < 0.0 && number(first, "p") < 0.001, "{first}");
    assert_eq!(second["clear"], false, "{second}");
    assert!(stderr.contains("1 of 2 differences do; the others may be chance"), "{stderr}");

    // Runs without marks, or of other benchmarks, are refused.
    std::fs::remove_file(Path::new(random).join("marks.json")).unwrap();
    let (code, _, stderr) = secateur(&["compare", none, random]);
    assert!(code == 1 && stderr.contains("marks.json") && stderr.contains("secateur eval"), "{stderr}");
}

#[test]
fn several_seeds_are_one_row() {
    let out = tempfile::tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    let fixed = ["sweep", "demo", "--method", "random,grid", "--budgets", "64", "--limit", "20", "--out", folder];
    let (code, stdout, stderr) = secateur(&[&fixed[..], &["--seeds", "3", "--json"]].concat());
    assert_eq!(code, 0, "{stderr}");
    let table: Value = serde_json::from_str(&stdout).unwrap();
    let rows = table["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["method"].as_str().unwrap()).collect();
    assert_eq!(names, ["none", "random", "grid"]);
    let seeds: Vec<f64> = table["runs"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|run| run["method"] == "random")
        .map(|run| run["score"].as_f64().unwrap())
        .collect();
    assert_eq!((seeds.len(), rows[1]["seeds"].as_u64(), rows[2]["seeds"].as_u64()), (3, Some(3), Some(1)));
    assert!((rows[1]["score"].as_f64().unwrap() - seeds.iter().sum::<f64>() / 3.0).abs() < 1e-9);
    assert!(rows[1]["half_width"].as_f64() > rows[1]["standard_error"].as_f64(), "{}", rows[1]);
    assert!(rows[0]["standard_error"].is_number() && rows[0]["half_width"].is_null());
    assert!(rows[1]["run"].as_str().unwrap().contains("demo-demo-random-64-seed-2"));

    for (format, expected) in [
        ("markdown", "| random, 3 seeds | "),
        ("latex", "\\begin{tabular}{lr}"),
        ("csv", "benchmark,method,tokens"),
        ("table", "64 tokens\n"),
    ] {
        let (code, stdout, _) = secateur(&[&fixed[..], &["--seeds", "3", "--format", format]].concat());
        assert!(code == 0 && stdout.contains(expected), "{format}: {stdout}");
    }
    assert_eq!(secateur(&[&fixed[..], &["--seeds", "0"]].concat()).0, 2);
}

#[test]
fn a_file_and_the_environment_give_flags() {
    let out = tempfile::tempdir().unwrap();
    let (config, runs) = (out.path().join("sweep.toml"), out.path().join("runs"));
    let text = format!(
        "benchmarks = [\"demo\"]\nmethod = \"grid\"\nbudgets = [64, \"12.5%\"]\nlimit = 4\njson = true\nout = {:?}\n",
        runs.to_str().unwrap()
    );
    std::fs::write(&config, text).unwrap();
    let path = config.to_str().unwrap();
    let (code, stdout, stderr) = secateur(&["sweep", "--config", path]);
    assert_eq!(code, 0, "{stderr}");
    let table: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(table["rows"].as_array().unwrap().len(), 3);
    // A flag on the command line counts before the file.
    let (_, stdout, _) = secateur(&["sweep", "--budgets", "29", "--config", path]);
    let table: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(table["rows"][1]["tokens"], 29);
    for (text, expected) in [
        ("budget = 3", "budget is no flag of `secateur sweep`"),
        ("limit = [", "line 1 is no `flag = value`"),
        ("json = 3", "json is true or false"),
    ] {
        std::fs::write(&config, text).unwrap();
        let (code, _, stderr) = secateur(&["sweep", "demo", "--config", path]);
        assert!(code == 2 && stderr.contains(expected), "{text}: {code}: {stderr}");
    }

    let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "demo", "--method", "none", "--out"]).arg(&runs).env("SECATEUR_LIMIT", "2");
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains("2 answers"), "{stderr}");
    assert!(stderr.contains("note: from the environment (SECATEUR_…): --limit"), "{stderr}");
}

#[test]
fn shells_and_manuals_know_every_name() {
    let (code, script, _) = secateur(&["completions", "bash"]);
    assert!(code == 0 && ["fastervlm", "pope", "flex", "--budgets"].iter().all(|name| script.contains(name)));
    let (code, page, _) = secateur(&["man"]);
    assert!(code == 0 && page.contains(".TH secateur 1") && page.contains("SECATEUR SWEEP"), "{page:.200}");
    let (code, version, _) = secateur(&["--version"]);
    assert!(code == 0 && version.contains("backends: ") && version.contains("on this processor"), "{version}");
    let (code, lines, _) = secateur(&["list", "published", "llava-1.5-7b", "fastervlm", "gqa", "58"]);
    assert!(code == 0 && !lines.is_empty() && lines.lines().all(|line| line.contains("gqa")), "{lines}");
    assert!(!secateur(&["list"]).1.contains("published"));
}

#[test]
fn a_limit_has_all_categories_and_a_run_goes_on_in_another_order() {
    let (data, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    crate::eval_tasks::write_data("pope", data.path());
    let folder = [data.path(), out.path()].map(|path| path.to_str().unwrap().to_owned());
    let fixed = ["eval", "pope", "--model", "demo", "--method", "none", "--data", &folder[0], "--out", &folder[1]];
    let run = out.path().join("pope-demo-none-all");
    let ids = || -> Vec<String> {
        let text = std::fs::read_to_string(run.join("answers.jsonl")).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| format!("{}{}", line["question_id"], line["prompt"])).collect()
    };
    let (code, _, stderr) = secateur(&[&fixed[..], &["--limit", "4"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("the 4 questions of pope are spread over 3 categories; --first"), "{stderr}");
    let spread = ids();
    // As if it was killed while it went over to the new order: the answers wait, and are still in the old one.
    let text = std::fs::read_to_string(run.join("answers.jsonl")).unwrap();
    let waiting: String = [0, 3, 6, 1]
        .iter()
        .zip(text.lines())
        .map(|(place, answer)| format!("{{\"question\":{place},\"answer\":{answer}}}\n"))
        .collect();
    std::fs::write(run.join("answers-ahead.jsonl"), waiting).unwrap();
    let (code, _, stderr) = secateur(&fixed);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("resuming at 4 of"), "{stderr}");
    let whole = ids();
    assert_eq!([0, 3, 6, 1].map(|i| whole[i].clone()), spread[..]);
    assert!(spread.iter().all(|id| whole.contains(id)));
    // The whole run is as one that was never limited.
    let (fresh, again) = (tempfile::tempdir().unwrap(), [&fixed[..9], &["--force"]].concat());
    let again: Vec<&str> = again.into_iter().filter(|arg| *arg != "--out").collect();
    assert_eq!(secateur(&[&again[..], &["--out", fresh.path().to_str().unwrap()]].concat()).0, 0);
    let fresh = std::fs::read(fresh.path().join("pope-demo-none-all/answers.jsonl")).unwrap();
    assert_eq!(std::fs::read(run.join("answers.jsonl")).unwrap(), fresh);
}
