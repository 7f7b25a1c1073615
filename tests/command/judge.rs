//! Benchmarks that a language model grades, against a small server that speaks OpenAI's chat interface.

use std::path::Path;

use crate::common::judge::{Server, asked};
use assert_cmd::Command;
use serde_json::{Value, json};

fn answer_line(id: u32, text: &str) -> String {
    json!({"question_id": id, "prompt": "q", "text": text}).to_string() + "\n"
}

/// Three questions of MM-Vet with labels and answers.
fn mm_vet(folder: &Path) {
    let labels = json!({
        "v1_0": {"question": "What is x?", "answer": "-1<AND>-5", "capability": ["ocr", "math"]},
        "v1_1": {"question": "What is shown?", "answer": "a boat<OR>a ship", "capability": ["rec"]},
        "v1_2": {"question": "Why?", "answer": "wind", "capability": ["rec", "know"]},
    });
    std::fs::write(folder.join("mm-vet.json"), labels.to_string()).unwrap();
    let answers = [answer_line(0, "x = -1"), answer_line(1, "A boat."), answer_line(2, "I do not know.")].concat();
    std::fs::write(folder.join("answers.jsonl"), answers).unwrap();
}

fn score(benchmark: &str, folder: &Path, more: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.env("OPENAI_API_KEY", "a key").args(["score", benchmark]).arg(folder.join("answers.jsonl"));
    let output = command.arg("--data").arg(folder).arg("--json").args(more).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn report(stdout: &str) -> Value {
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn rules_that_a_benchmark_does_not_have_are_refused_before_the_judge_is_asked() {
    let server = Server::start(|_, _| (200, "{'pred': 'yes', 'score': 5}".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
    write("test_q.json", json!([{"video_name": "one", "question": "who is it", "question_id": 0}]).to_string());
    write("test_a.json", json!([{"answer": "a dog", "question_id": 0}]).to_string());
    write("answers.jsonl", answer_line(0, "a dog"));
    let judge = ["--judge-url", &server.url];
    let (code, _, stderr) =
        score("activitynet-qa", folder.path(), &[&judge[..], &["--protocol", "lmms-eval"]].concat());
    assert!(code == 1 && stderr.contains("LLaVA's rules only"), "{stderr}");
    assert_eq!(server.requests().len(), 0);
    let (code, stdout, stderr) = score("activitynet-qa", folder.path(), &judge);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!((report(&stdout)["metrics"]["accuracy"].clone(), server.requests().len()), (json!(1.0), 1));
}

#[test]
fn mm_vet_is_graded_and_nothing_is_asked_twice() {
    let server = Server::start(|request, before| match asked(request) {
        // Busy at first, then something that is no grade, then one.
        text if text.ends_with("x = -1 | ") => match before {
            0 => (429, "slow down".to_owned()),
            1 => (200, "half of it".to_owned()),
            _ => (200, "0.5".to_owned()),
        },
        text if text.ends_with("A boat. | ") => (200, " 1.0 of 1".to_owned()),
        // Never a grade.
        _ => (200, "7".to_owned()),
    });
    let folder = tempfile::tempdir().unwrap();
    mm_vet(folder.path());
    let flags = ["--judge-url", &server.url, "--judge-price", "10,20"];
    let (code, stdout, stderr) = score("mm-vet", folder.path(), &flags);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("gpt-4-0613 at http://127.0.0.1"), "{stderr}");
    assert!(
        stderr.contains("3 requests to send (0 were answered before)") && stderr.contains("about $0.0"),
        "{stderr}"
    );
    let found = report(&stdout);
    assert_eq!(found["metrics"], json!({"rec": 0.5, "ocr": 0.5, "know": 0.0, "math": 0.5, "total": 0.5}));
    let notes = found["notes"].to_string();
    assert!(notes.contains("1 answer got no grade from the judge and counts as 0"), "{notes}");
    assert!(notes.contains("judged by gpt-4-0613") && notes.contains("not the official text"), "{notes}");

    let requests = server.requests();
    // One that was refused and two that were read, one, and five without a grade, ever less strict.
    assert_eq!(requests.len(), 3 + 1 + 5);
    let last: Vec<&Value> = requests.iter().filter(|request| asked(request).ends_with("know. | ")).collect();
    let temperatures: Vec<f64> = last.iter().map(|request| request["temperature"].as_f64().unwrap()).collect();
    assert_eq!(temperatures, [0.0, 0.5, 1.0, 1.5, 2.0]);
    assert_eq!(requests[0]["key"], "Bearer a key");
    assert!(asked(last[0]).contains("Why? | wind | I do not know. | "));
    let first = requests.iter().find(|request| asked(request).ends_with("x = -1 | ")).unwrap();
    assert!(asked(first).contains("What is x? | -1 <AND> -5 | x = -1 | "));

    let (_, again, stderr) = score("mm-vet", folder.path(), &flags);
    assert_eq!(report(&again), found);
    assert!(stderr.contains("0 requests to send (3 were answered before)"), "{stderr}");
    assert_eq!(server.requests(), Vec::<Value>::new());

    // Another judge, and another instruction, are asked anew. A half-written line of a killed run is no harm.
    let cache = folder.path().join("judge.jsonl");
    let text = std::fs::read_to_string(&cache).unwrap();
    std::fs::write(&cache, format!("{text}{{\"request\": \"0")).unwrap();
    let instruction = folder.path().join("instruction.txt");
    std::fs::write(&instruction, "Grade it.").unwrap();
    let mut flags = flags.to_vec();
    flags.extend(["--judge-model", "other", "--judge-prompt", instruction.to_str().unwrap()]);
    let (code, stdout, stderr) = score("mm-vet", folder.path(), &flags);
    assert_eq!(code, 0, "{stderr}");
    assert!(report(&stdout)["notes"].to_string().contains("instruction.txt"));
    let requests = server.requests();
    assert!(requests.iter().all(|request| request["model"] == "other" && asked(request).starts_with("Grade it.\n")));
    let (_, _, stderr) = score("mm-vet", folder.path(), &flags);
    assert!(stderr.contains("(3 were answered before)"), "{stderr}");
}

#[test]
fn llava_bench_compares_with_the_reference_answers() {
    let server = Server::start(|request, _| match asked(request) {
        text if text.contains("What is it?") => (200, "8 6\nBoth see a boat.".to_owned()),
        text if text.contains("Describe it.") => (200, "10, 7\n…".to_owned()),
        _ => (200, "I cannot tell.".to_owned()),
    });
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, lines: &[Value]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    let question = |id: u32, category: &str, text: &str| json!({"question_id": id, "image": "001.jpg", "category": category, "text": text});
    write(
        "questions.jsonl",
        &[question(0, "conv", "What is it?"), question(1, "detail", "Describe it."), question(2, "complex", "Why?")],
    );
    write("context.jsonl", &[json!({"id": "1", "image": "001.jpg", "caption": ["A boat", "on the sea."]})]);
    write("answers_gpt4.jsonl", &[0, 1, 2].map(|id| json!({"question_id": id, "text": format!("reference {id}")})));
    std::fs::write(
        folder.path().join("answers.jsonl"),
        [0, 1, 2].map(|id| answer_line(id, &format!("own {id}"))).concat(),
    )
    .unwrap();
    let prompt = |text: &str| json!({"role": "Assistant", "prompt": text});
    let rule = json!({
        "llava_bench_conv": prompt("Rule of conv."),
        "llava_bench_detail": prompt("Rule of detail."),
        "llava_bench_complex": prompt("Rule of complex."),
    });
    std::fs::write(folder.path().join("rule.json"), rule.to_string()).unwrap();

    let rule = folder.path().join("rule.json").display().to_string();
    let (code, stdout, stderr) =
        score("llava-bench", folder.path(), &["--judge-url", &server.url, "--judge-prompt", &rule]);
    assert_eq!(code, 0, "{stderr}");
    let found = report(&stdout);
    assert_eq!(found["metrics"], json!({"conv": 0.75, "detail": 0.7, "all": 0.722222222222}));
    assert!(found["notes"].to_string().contains("1 answer(s) got no score from the judge and are left out"));
    let requests = server.requests();
    let conv = requests.iter().find(|request| asked(request).contains("What is it?")).unwrap();
    assert_eq!(
        asked(conv),
        "[Context]\nA boat\non the sea.\n\n[Question]\nWhat is it?\n\n[Assistant 1]\nreference 0\n\n[End of Assistant 1]\n\n\
         [Assistant 2]\nown 0\n\n[End of Assistant 2]\n\n[System]\nRule of conv.\n\n"
    );
    // Ours, without one; a file that lacks a category is refused.
    let (_, _, stderr) = score("llava-bench", folder.path(), &["--judge-url", &server.url]);
    assert!(stderr.contains("3 requests to send (0 were"), "{stderr}");
    assert!(server.requests().iter().all(|request| asked(request).contains("from 1 to 10")));
    std::fs::write(&rule, json!({"llava_bench_conv": prompt("Rule of conv.")}).to_string()).unwrap();
    let flags = ["--judge-url", &server.url, "--judge-prompt", &rule];
    let (code, _, stderr) = score("llava-bench", folder.path(), &flags);
    assert!(code == 1 && stderr.contains("no `prompt` of `llava_bench_detail`"), "{stderr}");
    let (code, _, stderr) = score("mm-vet", folder.path(), &flags);
    assert!(code == 1 && !stderr.contains("requests to send"), "{stderr}");
}

#[test]
fn a_judge_that_fails_gets_a_sentence_and_replies_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    mm_vet(folder.path());
    let fails = |url: &str, benchmark: &str, expected: &str| {
        let (code, _, stderr) = score(benchmark, folder.path(), &["--judge-url", url]);
        assert!(code == 1 && stderr.contains(expected), "{stderr}");
    };
    fails("localhost:1", "mm-vet", "has no http address");
    let refusing = Server::start(|_, _| (401, "no".to_owned()));
    fails(&refusing.url, "mm-vet", "refuses the key (status 401); set OPENAI_API_KEY");
    let other = Server::start(|_, _| (404, "no such model".to_owned()));
    fails(&other.url, "mm-vet", "answers with status 404: no such model; --judge-model");
    // One question is answered, the others meet a server that is down.
    let failing = Server::start(|request, _| {
        if asked(request).ends_with("A boat. | ") { (200, "1".to_owned()) } else { (500, "down".to_owned()) }
    });
    fails(&failing.url, "mm-vet", "answers with status 500, 6 times: down; replies so far are kept");
    fails(&failing.url, "gqa", "gqa needs no judge");
    std::fs::remove_file(folder.path().join("mm-vet.json")).unwrap();
    fails(&failing.url, "mm-vet", "expected mm-vet.json here");
}

/// From images to grades in one command.
#[test]
fn a_run_is_judged_at_its_end() {
    let server = Server::start(|_, _| (200, "0.3".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    mm_vet(folder.path());
    std::fs::create_dir(folder.path().join("images")).unwrap();
    let image = crate::common::fixture("tiny-llava-1.5/images/boat_123x90.png");
    std::fs::copy(image, folder.path().join("images/v1_0.png")).unwrap();
    let question = json!({"question_id": 0, "image": "v1_0.png", "text": "What is x?", "category": "conv"});
    std::fs::write(folder.path().join("llava-mm-vet.jsonl"), format!("{question}\n")).unwrap();
    // An instruction that the benchmark cannot use is refused before the first question.
    std::fs::write(folder.path().join("rule.json"), "{}").unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    let args = ["eval", "mm-vet", "--model", "demo", "--judge-url", &server.url, "--judge-prompt", "rule.json"];
    let output = command.args(args).arg("--data").arg(folder.path()).current_dir(folder.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("is one text, not a JSON object"));
    assert!(!folder.path().join("runs").exists());

    let mut command = Command::cargo_bin("secateur").unwrap();
    let args = [
        "eval",
        "mm-vet",
        "--model",
        "demo",
        "--tokens",
        "8",
        "--json",
        "--judge-model",
        "m",
        "--judge-url",
        &server.url,
    ];
    let output = command.args(args).arg("--data").arg(folder.path()).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found = report(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(found["metrics"]["total"], 0.3);
    let run = folder.path().join("runs/mm-vet-demo-fastervlm-8");
    assert!(run.join("judge.jsonl").is_file());
    let metrics: Value = serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["metrics"]["total"], 0.3);
    // Another judge of the finished run: the new score is the one that is kept.
    let stricter = Server::start(|_, _| (200, "0.1".to_owned()));
    let mut command = Command::cargo_bin("secateur").unwrap();
    let args = ["eval", "mm-vet", "--model", "demo", "--tokens", "8", "--judge-url", &stricter.url];
    let output = command.args(args).arg("--data").arg(folder.path()).current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics: Value = serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(metrics["metrics"]["total"], 0.1);
    // One that fails costs nothing that is there.
    let failing = Server::start(|_, _| (401, "no".to_owned()));
    let mut command = Command::cargo_bin("secateur").unwrap();
    let args = ["eval", "mm-vet", "--model", "demo", "--tokens", "8", "--judge-url", &failing.url];
    let output = command.args(args).arg("--data").arg(folder.path()).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let kept: Value = serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!(kept, metrics);
    let before = std::fs::read(run.join("config.json")).unwrap();
    let mut command = Command::cargo_bin("secateur").unwrap();
    let output = command
        .args(args)
        .args(["--protocol", "lmms-eval"])
        .arg("--data")
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let kept: Value = serde_json::from_slice(&std::fs::read(run.join("metrics.json")).unwrap()).unwrap();
    assert_eq!((kept, std::fs::read(run.join("config.json")).unwrap()), (metrics, before));
}

/// OpenAI's reasoning models refuse `max_tokens` and any temperature but their own.
#[test]
fn a_judge_that_wants_other_fields_gets_them() {
    let server = Server::start(|request, _| {
        let refuse = |field: &str, text: &str| (400, json!({"error": {"message": text, "param": field}}).to_string());
        if request.get("max_tokens").is_some() {
            return refuse(
                "max_tokens",
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            );
        }
        if request.get("temperature").is_some() {
            return refuse(
                "temperature",
                "Unsupported value: 'temperature' does not support 0.0 with this model. Only the default (1) value is supported.",
            );
        }
        (200, "<think>\nis it 0.9?\n</think>\n0.5".to_owned())
    });
    let folder = tempfile::tempdir().unwrap();
    mm_vet(folder.path());
    let (code, stdout, stderr) = score("mm-vet", folder.path(), &["--judge-url", &server.url, "--judge-model", "o9"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(report(&stdout)["metrics"]["total"], 0.5);
    let requests = server.requests();
    let answered: Vec<&Value> =
        requests.iter().filter(|request| request.get("max_completion_tokens").is_some()).collect();
    assert!(answered.len() >= 3, "{requests:?}");
    assert!(answered.iter().any(|request| request.get("temperature").is_none()), "{requests:?}");
}

#[test]
fn a_judge_that_nobody_can_read_is_an_error() {
    let server = Server::start(|_, _| (200, "What a lovely image.".to_owned()));
    let folder = tempfile::tempdir().unwrap();
    mm_vet(folder.path());
    let (code, stdout, stderr) = score("mm-vet", folder.path(), &["--judge-url", &server.url]);
    assert_eq!((code, &stdout[..]), (1, ""), "{stderr}");
    assert!(stderr.contains("hold no grade") && stderr.contains("lovely"), "{stderr}");
}
