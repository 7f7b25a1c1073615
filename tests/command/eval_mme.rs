//! `eval mme` and `score mme` on a few images in MME's layout, made here.

use std::path::{Path, PathBuf};

use crate::common::{fixture, json};
use assert_cmd::Command;
use secateur::task::{Answer, Mme, Protocol, Task};
use serde_json::{Value, json};
use tempfile::TempDir;

const SUFFIX: &str = "\nAnswer the question using a single word or phrase.";

/// Two categories with labels beside the images, one with folders of their own; four images, eight questions.
fn data(with_question_file: bool) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("MME");
    let mut questions = String::new();
    for (category, nested, file) in [
        ("existence", false, "0001"),
        ("existence", false, "0002"),
        ("artwork", true, "0003"),
        ("code_reasoning", false, "0004"),
    ] {
        let base = root.join("MME_Benchmark_release_version").join(category);
        let (images, labels) = if nested {
            (base.join("images"), base.join("questions_answers_YN"))
        } else {
            (base.clone(), base.clone())
        };
        std::fs::create_dir_all(&images).unwrap();
        std::fs::create_dir_all(&labels).unwrap();
        let image = images.join(format!("{file}.png"));
        std::fs::copy(fixture("tiny-llava-1.5/images/boat_123x90.png"), image).unwrap();
        let label = "Is there a boat? Please answer yes or no.\tYes\nIs there a cat?  Please answer yes or no.\tNo\n";
        std::fs::write(labels.join(format!("{file}.txt")), label).unwrap();
        let image = if nested { format!("{category}/images/{file}.png") } else { format!("{category}/{file}.png") };
        for question in ["Is there a boat?", "Is there a cat?"] {
            let line = json!({"question_id": image, "image": image, "text": format!("{question}{SUFFIX}"), "category": category});
            questions += &format!("{line}\n");
        }
    }
    if with_question_file {
        std::fs::write(root.join("llava_mme.jsonl"), questions).unwrap();
    }
    (folder, root)
}

fn eval(root: &Path, out: &Path, extra: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["eval", "mme", "--tokens", "16", "--json", "--model"]);
    command.arg(fixture("tiny-llava-1.5/llava-1.5-tiny-hf")).arg("--data").arg(root).arg("--out").arg(out).args(extra);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn run_folder(out: &Path) -> PathBuf {
    out.join("mme-llava-1.5-tiny-hf-fastervlm-16")
}

#[test]
fn a_run_leaves_settings_answers_and_score() {
    let (_keep, root) = data(true);
    let out = root.join("out");
    let (code, stdout, stderr) = eval(&root, &out, &[]);
    assert_eq!(code, 0, "{stderr}");
    let result: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&result["benchmark"], &result["protocol"], &result["n"]), (&"mme".into(), &"llava".into(), &8.into()));
    for name in ["existence", "artwork", "code_reasoning", "perception", "cognition", "total"] {
        assert!(result["metrics"][name].is_number(), "{name}");
    }
    let folder = run_folder(&out);
    let answers = std::fs::read_to_string(folder.join("answers.jsonl")).unwrap();
    assert_eq!(answers.lines().count(), 8);
    let first: Value = serde_json::from_str(answers.lines().next().unwrap()).unwrap();
    let keys: Vec<&String> = first.as_object().unwrap().keys().collect();
    for key in ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"] {
        assert!(keys.iter().any(|found| *found == key), "{key}");
    }
    assert_eq!(first["question_id"], "existence/0001.png");
    let config: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!((&config["method"], &config["tokens"]), (&"fastervlm".into(), &16.into()));
    let mut metrics: Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("metrics.json")).unwrap()).unwrap();
    // The score, and what it was measured on.
    assert_eq!(metrics.as_object_mut().unwrap().remove("run"), Some(config));
    assert_eq!(metrics.as_object_mut().unwrap().remove("cost").unwrap()["questions"], 8);
    metrics["schema"] = 1.into();
    assert_eq!(metrics, result);

    // A finished run is not run again, and scoring its answers gives the same.
    let (code, again, stderr) = eval(&root, &out, &[]);
    assert_eq!((code, again), (0, stdout.clone()));
    assert!(stderr.contains("has 8 answers already"), "{stderr}");
    let mut score = Command::cargo_bin("secateur").unwrap();
    score.args(["score", "mme", "--json"]).arg(folder.join("answers.jsonl")).arg("--data").arg(&root);
    assert_eq!(String::from_utf8(score.output().unwrap().stdout).unwrap(), stdout);
}

#[test]
fn an_interrupted_run_continues_to_the_same_answers() {
    let (_keep, root) = data(true);
    let (whole, broken) = (root.join("whole"), root.join("broken"));
    assert_eq!(eval(&root, &whole, &[]).0, 0);
    let expected = std::fs::read(run_folder(&whole).join("answers.jsonl")).unwrap();

    assert_eq!(eval(&root, &broken, &["--limit", "3", "--first"]).0, 0);
    let path = run_folder(&broken).join("answers.jsonl");
    let partial = std::fs::read(&path).unwrap();
    assert!(expected.starts_with(&partial));
    // Killed in the middle of the third line.
    std::fs::write(&path, &partial[..partial.len() - 20]).unwrap();
    let (code, _, stderr) = eval(&root, &broken, &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(std::fs::read(&path).unwrap(), expected);
}

#[test]
fn a_finished_run_is_not_touched_by_a_shorter_one_or_a_failing_one() {
    let (_keep, root) = data(true);
    let out = root.join("out");
    assert_eq!(eval(&root, &out, &[]).0, 0);
    let read = |name: &str| std::fs::read(run_folder(&out).join(name)).unwrap();
    let before = ["config.json", "answers.jsonl", "metrics.json"].map(read);
    let (code, stdout, _) = eval(&root, &out, &["--limit", "2"]);
    assert_eq!(code, 0);
    assert!(stdout.contains("2 of 8 labelled questions"), "{stdout}");
    assert_eq!(["config.json", "answers.jsonl", "metrics.json"].map(read), before);
    // Other rules score the answers that are there.
    let (code, stdout, stderr) = eval(&root, &out, &["--protocol", "lmms-eval"]);
    assert!(code == 0 && (stdout.clone() + &stderr).contains("lmms-eval rules"), "{stdout}{stderr}");
    assert_eq!(["config.json", "answers.jsonl", "metrics.json"].map(read), before);
    // No such backend, no such question: an error, and nothing lost, not even with --force.
    assert_eq!(eval(&root, &out, &["--force", "--backend", "tpu"]).0, 2);
    assert_eq!(eval(&root, &out, &["--limit", "0"]).0, 2);
    assert_eq!(["config.json", "answers.jsonl", "metrics.json"].map(read), before);
}

#[test]
fn whatever_is_left_of_a_killed_run_is_made_whole() {
    let (_keep, root) = data(true);
    let out = root.join("out");
    let (_, whole, _) = eval(&root, &out, &[]);
    let answers = run_folder(&out).join("answers.jsonl");
    let complete = std::fs::read(&answers).unwrap();
    // Killed between the last answer and the score.
    std::fs::remove_file(run_folder(&out).join("metrics.json")).unwrap();
    assert_eq!(eval(&root, &out, &[]).1, whole);
    assert!(run_folder(&out).join("metrics.json").is_file());
    // Killed before the first answer: other settings may start there.
    std::fs::write(&answers, "").unwrap();
    assert_eq!(eval(&root, &out, &["--dtype", "f32"]).1, whole);
    assert_eq!(std::fs::read(&answers).unwrap(), complete);
    // Half of it is there, and less is asked for: scored, and left alone.
    let half: Vec<u8> = complete.split_inclusive(|&b| b == b'\n').take(4).flatten().copied().collect();
    std::fs::write(&answers, &half).unwrap();
    std::fs::remove_file(run_folder(&out).join("metrics.json")).unwrap();
    let (code, _, stderr) = eval(&root, &out, &["--dtype", "f32", "--limit", "2"]);
    assert_eq!(code, 0);
    assert!(stderr.contains("has 4 answers already"), "{stderr}");
    assert_eq!(std::fs::read(&answers).unwrap(), half);
    // A finished run starts again when it is told to.
    assert_eq!(eval(&root, &out, &["--dtype", "f32"]).1, whole);
    assert_eq!(eval(&root, &out, &["--force"]).1, whole);
    assert_eq!(std::fs::read(&answers).unwrap(), complete);
}

#[test]
fn a_missing_label_is_found_before_the_model_is_loaded() {
    let (_keep, root) = data(true);
    std::fs::remove_file(root.join("MME_Benchmark_release_version/existence/0002.txt")).unwrap();
    let (code, _, stderr) = eval(&root, &root.join("out"), &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("no label") && stderr.contains("existence/0002.txt"), "{stderr}");
    assert!(!root.join("out").exists());
}

#[test]
fn a_run_that_is_being_written_is_refused() {
    let (_keep, root) = data(true);
    let out = root.join("out");
    assert_eq!(eval(&root, &out, &["--limit", "2"]).0, 0);
    let file = std::fs::File::open(run_folder(&out).join("answers.jsonl")).unwrap();
    file.lock().unwrap();
    let (code, _, stderr) = eval(&root, &out, &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("another process"), "{stderr}");
}

#[test]
fn a_folder_with_another_run_is_left_alone() {
    let (_keep, root) = data(true);
    let out = root.join("out");
    assert_eq!(eval(&root, &out, &["--limit", "2"]).0, 0);
    let before = std::fs::read(run_folder(&out).join("answers.jsonl")).unwrap();
    let (code, _, stderr) = eval(&root, &out, &["--dtype", "bf16"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("other settings") && stderr.contains("--force"), "{stderr}");
    assert_eq!(std::fs::read(run_folder(&out).join("answers.jsonl")).unwrap(), before);
    assert_eq!(eval(&root, &out, &["--dtype", "bf16", "--force", "--limit", "2"]).0, 0);
}

#[test]
fn a_temperature_draws_the_same_answers_again_and_is_a_setting_of_the_run() {
    let (_data, root) = data(true);
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let answers = |name: &str, extra: &[&str]| {
        let (code, _, stderr) = eval(&root, &out(name), extra);
        assert_eq!(code, 0, "{stderr}");
        std::fs::read_to_string(run_folder(&out(name)).join("answers.jsonl")).unwrap()
    };
    let drawn = answers("a", &["--temperature", "1.5"]);
    assert_eq!(answers("b", &["--temperature", "1.5"]), drawn);
    assert_ne!(answers("c", &["--temperature", "1.5", "--seed", "7"]), drawn);
    assert_ne!(answers("d", &[]), drawn);
    let (code, _, stderr) = eval(&root, &out("a"), &["--temperature", "0.5"]);
    assert!(code == 1 && stderr.contains("a run with other settings"), "{stderr}");
    let (code, _, stderr) = eval(&root, &out("e"), &["--temperature", "-1"]);
    assert!(code == 2 && stderr.contains("--temperature -1 is not possible"), "{stderr}");
}

#[test]
fn the_release_alone_gives_the_same_questions() {
    let (_keep, with_file) = data(true);
    let (_keep_too, without) = data(false);
    let texts = |root: &Path| {
        let mut samples: Vec<(Value, String)> =
            Mme.samples(root).unwrap().into_iter().map(|s| (s.question_id, s.text)).collect();
        samples.sort_by_key(|(id, text)| (id.to_string(), text.clone()));
        samples
    };
    assert_eq!(texts(&with_file), texts(&without));
    assert_eq!(texts(&without).len(), 8);
}

#[test]
fn data_that_is_not_mme_gets_a_sentence() {
    let empty = tempfile::tempdir().unwrap();
    let (code, _, stderr) = eval(empty.path(), &empty.path().join("out"), &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("MME_Benchmark_release_version"), "{stderr}");
    assert!(!empty.path().join("out").exists(), "nothing is written before the data is checked");

    let (_keep, root) = data(true);
    std::fs::remove_file(root.join("MME_Benchmark_release_version/existence/0002.png")).unwrap();
    let (code, _, stderr) = eval(&root, &root.join("out"), &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("0002.png") && stderr.contains("missing"), "{stderr}");

    let answers = root.join("answers.jsonl");
    std::fs::write(&answers, "{\"question_id\": \"existence/0001.png\", \"prompt\": \"What?\", \"text\": \"Yes\"}\n")
        .unwrap();
    let error = Mme.score(&root, &Answer::read_all(&answers).unwrap(), Protocol::Llava).unwrap_err().to_string();
    assert!(error.contains("no label") && error.contains("existence/0001.txt"), "{error}");
    std::fs::write(&answers, "{\"question_id\": 1}\nnonsense\n").unwrap();
    assert!(Answer::read_all(&answers).unwrap_err().to_string().contains("line 1"));
}

/// The goldens were computed by lmms-eval's rule; the labels are laid out as MME's own.
#[test]
fn scores_are_those_of_the_official_rules() {
    let folder = tempfile::tempdir().unwrap();
    let items: Vec<Value> = std::fs::read_to_string(fixture("mme/items.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut answers = Vec::new();
    for item in &items {
        let (id, category) = (item["question_id"].as_str().unwrap(), item["category"].as_str().unwrap());
        let category_folder = folder.path().join("MME_Benchmark_release_version").join(category);
        std::fs::create_dir_all(&category_folder).unwrap();
        let stem = Path::new(id).file_stem().unwrap().to_str().unwrap();
        let label = format!("{}\t{}\n", item["question"].as_str().unwrap(), item["answer"].as_str().unwrap());
        let path = category_folder.join(format!("{stem}.txt"));
        let before = std::fs::read_to_string(&path).unwrap_or_default();
        std::fs::write(&path, before + &label).unwrap();
        let prompt = item["question"].as_str().unwrap().replace(" Please answer yes or no.", SUFFIX);
        let line = json!({"question_id": id, "prompt": prompt, "text": item["pred"]}).to_string();
        answers.push(serde_json::from_str::<Answer>(&line).unwrap());
    }
    let report = Mme.score(folder.path(), &answers, Protocol::LmmsEval).unwrap();
    let metric = |name: &str| report.metrics.iter().find(|(found, _)| found == name).unwrap().1;
    let expected = json("mme/expected.json");
    for (category, score) in expected["per_category"].as_object().unwrap() {
        assert!((metric(category) - score.as_f64().unwrap()).abs() < 1e-9, "{category}");
    }
    assert_eq!(metric("perception"), expected["perception"].as_f64().unwrap());
    assert_eq!(metric("cognition"), expected["cognition"].as_f64().unwrap());
    assert_eq!(report.n, items.len());

    // The benchmark's own rule takes no single letters: `n` is neither yes nor no.
    let own = Mme.score(folder.path(), &answers, Protocol::Llava).unwrap();
    let total = |report: &secateur::task::Report| report.metrics.last().unwrap().1;
    assert!(total(&own) < total(&report));
}
