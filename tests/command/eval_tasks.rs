//! Every benchmark of the registry, from LLaVA's evaluation folder to a run folder, with the tiny checkpoint.

use std::path::Path;

use crate::common::{copy_folder, fixture};
use assert_cmd::Command;
use base64::{Engine, engine::general_purpose::STANDARD};
use secateur::{
    eval::{asked, read_marks},
    task::{Protocol, Sample, TASKS},
    text::SINGLE_WORD,
};
use serde_json::{Value, json};

const IMAGES: [&str; 2] = ["boat_123x90.png", "kitchen_85x120.png"];
const VIDEOS: [&str; 4] = ["tgif-qa", "msvd-qa", "msrvtt-qa", "activitynet-qa"];
const CHOOSE: &str = "\nAnswer with the option's letter from the given choices directly.";

/// Writes a benchmark of three questions about two images in LLaVA's layout. A new benchmark needs a row here.
pub(super) fn write_data(benchmark: &str, data: &Path) {
    let images = |folder: &str| {
        std::fs::create_dir_all(data).unwrap();
        let folder = data.join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for name in IMAGES {
            std::fs::copy(fixture("tiny-llava-1.5/images").join(name), folder.join(name)).unwrap();
        }
    };
    let write = |name: &str, text: String| {
        let path = data.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let lines = |rows: &[Value]| rows.iter().map(|row| format!("{row}\n")).collect::<String>();
    let questions = |suffix: &str, category: &str| {
        let ask = |i: usize| {
            let text = format!("Is there a boat number {i}?{suffix}");
            json!({"question_id": i, "image": IMAGES[i % 2], "text": text, "category": category})
        };
        lines(&[ask(0), ask(1), ask(2)])
    };
    match benchmark {
        "vqav2" => {
            images("test2015");
            write("llava_vqav2_mscoco_test-dev2015.jsonl", questions(SINGLE_WORD, "default"));
            write("llava_vqav2_mscoco_test2015.jsonl", questions(SINGLE_WORD, "default"));
        }
        "gqa" => {
            images("data/images");
            write("llava_gqa_testdev_balanced.jsonl", questions(SINGLE_WORD, "default"));
            let labels = json!({"0": {"answer": "yes"}, "1": {"answer": "no"}, "2": {"answer": "yes"}});
            write("testdev_balanced_questions.json", labels.to_string());
        }
        "vizwiz" => {
            images("test");
            write("llava_test.jsonl", questions(SINGLE_WORD, "default"));
        }
        "scienceqa" => {
            images("images/test");
            let entry = |id: &str, image: Option<&str>| {
                let placeholder = if image.is_some() { "<image>\n" } else { "" };
                let asked = format!("{placeholder}Which is a boat?\nA. this\nB. that");
                let mut entry = json!({"id": id, "conversations": [{"value": asked}, {"value": "B"}]});
                if let Some(image) = image {
                    entry["image"] = image.into();
                }
                entry
            };
            let entries = json!([entry("4", None), entry("5", Some(IMAGES[0])), entry("6", Some(IMAGES[1]))]);
            write("llava_test_CQM-A.json", entries.to_string());
        }
        "textvqa" => {
            images("train_images");
            let suffix = format!("\nReference OCR token: A, B{SINGLE_WORD}");
            write("llava_textvqa_val_v051_ocr.jsonl", questions(&suffix, "default"));
            let label = |i: usize| json!({"image_id": i.to_string(), "question": format!("Is there a boat number {i}?"), "answers": vec!["yes"; 10]});
            write("TextVQA_0.5.1_val.json", json!({"data": [label(0), label(1), label(2)]}).to_string());
        }
        "pope" => {
            images("val2014");
            let mut all = String::new();
            for category in ["random", "popular", "adversarial"] {
                let own = questions(SINGLE_WORD, category);
                let labels: Vec<Value> = own
                    .lines()
                    .map(|line| {
                        let mut label: Value = serde_json::from_str(line).unwrap();
                        label["text"] = label["text"].as_str().unwrap().replace(SINGLE_WORD, "").into();
                        label["label"] = "yes".into();
                        label
                    })
                    .collect();
                write(&format!("coco/coco_pope_{category}.json"), lines(&labels));
                all.push_str(&own.replace("\"question_id\":", &format!("\"question_id\":{}", all.lines().count() + 1)));
            }
            write("llava_pope_test.jsonl", all);
        }
        "mme" => {
            images("MME_Benchmark_release_version/existence");
            for name in IMAGES {
                let labels =
                    "Is there a boat? Please answer yes or no.\tYes\nIs there a cat? Please answer yes or no.\tNo\n";
                let stem = name.trim_end_matches(".png");
                write(&format!("MME_Benchmark_release_version/existence/{stem}.txt"), labels.to_owned());
            }
        }
        "mmbench" | "mmbench-cn" => {
            let name = if benchmark == "mmbench" { "mmbench_dev_20230712.tsv" } else { "mmbench_dev_cn_20231003.tsv" };
            let image = STANDARD.encode(std::fs::read(fixture("tiny-llava-1.5/images").join(IMAGES[0])).unwrap());
            let rows = [1, 1_000_001, 2].map(|i| format!("{i}\tWhich?\ta hint\tboat\tcat\t\t\tA\t{image}\tdev\n"));
            write(name, format!("index\tquestion\thint\tA\tB\tC\tD\tanswer\timage\tsplit\n{}", rows.concat()));
        }
        "mm-vet" => {
            images("images");
            write("llava-mm-vet.jsonl", questions("", "conv"));
        }
        "llava-bench" => {
            images("images");
            write("questions.jsonl", questions("", "conv"));
        }
        "seed-bench" => {
            images(".");
            write("llava-seed-bench.jsonl", questions(CHOOSE, "default"));
            let label = |i: usize| json!({"question_id": i.to_string(), "question_type_id": 1, "data_type": "image", "answer": "A"});
            let labels =
                json!({"question_type": {"Scene Understanding": 1}, "questions": [label(0), label(1), label(2)]});
            write("SEED-Bench.json", labels.to_string());
        }
        name if VIDEOS.contains(&name) => {
            let prefix = if name == "activitynet-qa" { "v_" } else { "" };
            let folder = match name {
                "tgif-qa" => "mp4",
                "msrvtt-qa" => "videos/all",
                "activitynet-qa" => "all_test",
                _ => "videos",
            };
            copy_folder(&fixture("tiny-video-llava/video/frames"), &data.join(folder).join(format!("{prefix}clip")));
            let id = |i: usize| format!("v_clip_{i}");
            let question =
                |i: usize| json!({"video_name": "clip", "question": format!("what moves {i}?"), "question_id": id(i)});
            let label = |i: usize| json!({"answer": "square", "type": 1, "question_id": id(i)});
            write("test_q_1k.json", Value::from_iter((0..3).map(question)).to_string());
            write("test_a_1k.json", Value::from_iter((0..3).map(label)).to_string());
        }
        // It brings its own.
        "demo" => {}
        other => panic!("no data for the benchmark {other}: add a row"),
    }
}

#[test]
fn every_benchmark_runs_scores_and_writes_its_upload() {
    for task in TASKS {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("data"), folder.path().join("runs"));
        write_data(task.name(), &data);
        let (model, method) = match VIDEOS.contains(&task.name()) {
            true => ("tiny-video-llava/Video-LLaVA-tiny", "fastervlm"),
            false => ("tiny-llava-1.5/llava-v1.5-tiny", "cdpruner"),
        };
        let output = Command::cargo_bin("secateur")
            .unwrap()
            .args(["eval", task.name(), "--json", "--method", method, "--tokens", "16", "--limit", "9", "--model"])
            .arg(fixture(model))
            .arg("--data")
            .arg(&data)
            .arg("--out")
            .arg(&out)
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {stderr}", task.name());
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        let model = Path::new(model).file_name().unwrap().to_str().unwrap();
        let run = out.join(format!("{}-{model}-{method}-16", task.name()));
        let answers = std::fs::read_to_string(run.join("answers.jsonl")).unwrap();
        let mut samples = task.samples(&data).unwrap();
        let whole = samples.len() <= 9;
        samples = asked(*task, samples, Some(9), false);
        assert_eq!(answers.lines().count(), samples.len(), "{}", task.name());
        assert_eq!(report["benchmark"], task.name());
        assert!(run.join("metrics.json").is_file() && run.join("config.json").is_file());
        // The headline metric follows from the marks, unless a server or a judge gives it.
        let marks = read_marks(&run).unwrap();
        match marks.score() {
            Some(score) => {
                let found = report["metrics"][&marks.metric].as_f64().unwrap();
                assert!((score - found).abs() < 1e-9, "{}: {score}, not {found}", task.name());
                assert_eq!(marks.metric, task.card().headline(Protocol::Llava), "{}", task.name());
                assert_eq!(report["standard_errors"][&marks.metric].is_number(), marks.standard_error().is_some());
                // ScienceQA's headline is that of questions with an image.
                let counts = |sample: &&Sample| task.name() != "scienceqa" || sample.media.is_some();
                let counted = samples.iter().filter(counts).count();
                // An image with one of its two questions is left out.
                let counted = if task.card().together { counted / 2 * 2 } else { counted };
                assert_eq!(marks.answers.len(), counted, "{}", task.name());
            }
            None => assert!(task.judged().is_some() || task.card().upload.is_some(), "{} has no marks", task.name()),
        }
        for (line, sample) in answers.lines().zip(&samples) {
            let answer: Value = serde_json::from_str(line).unwrap();
            assert_eq!(answer["prompt"], sample.text.as_str(), "{}", task.name());
            // Only multiple-choice questions ask for more than the file holds.
            assert_eq!(sample.suffix.is_empty(), !task.name().starts_with("mmbench"));
            assert_eq!(answer.get("option_char").is_some(), task.name().starts_with("mmbench"));
        }
        let (read, _) = task.answers(&run.join("answers.jsonl")).unwrap();
        if let Some(name) = task.card().upload {
            // A server is not sent a part.
            assert_eq!(run.join(name).exists(), whole, "{}", task.name());
        }
        if let Some(name) = task.card().upload.filter(|_| whole) {
            let upload = std::fs::read(run.join(name)).unwrap();
            // A workbook holds the time at which it was made.
            let same = name.ends_with("xlsx") || upload == task.upload(&data, &read).unwrap();
            assert!(same && !upload.is_empty(), "{}", task.name());
        }
    }
}

/// The texts that CDPruner's evaluation scripts give to CLIP.
#[test]
fn clip_reads_the_question_of_the_official_scripts() {
    for (benchmark, expected) in [
        ("gqa", "Is there a boat number 0?"),
        ("textvqa", "Is there a boat number 0?\nReference OCR token: A, B"),
        ("scienceqa", "Which is a boat?\nA. this\nB. that"),
        ("mmbench", "a hint\nWhich?\nA. boat\nB. cat"),
        ("mm-vet", "Is there a boat number 0?"),
        ("mme", "Is there a boat?"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        write_data(benchmark, folder.path());
        let sample = &secateur::task::task(benchmark).unwrap().samples(folder.path()).unwrap()[0];
        assert_eq!(sample.clip_text, expected, "{benchmark}");
    }
}

/// `eval` on the data that is in `folder`, into `runs` there.
fn eval(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.arg("eval").args(args).arg("--model").arg(fixture("tiny-llava-1.5/llava-v1.5-tiny"));
    let output = command.arg("--data").arg(folder).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn fastv_answers_questions_without_an_image() {
    for batch in ["1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        write_data("scienceqa", folder.path());
        eval(folder.path(), &["scienceqa", "--method", "fastv", "--tokens", "16", "--batch-size", batch]);
        let run = folder.path().join("runs/scienceqa-llava-v1.5-tiny-fastv-16");
        assert_eq!(std::fs::read_to_string(run.join("answers.jsonl")).unwrap().lines().count(), 3, "{batch}");
    }
}

#[test]
fn a_part_of_the_questions_has_no_file_for_the_server() {
    let folder = tempfile::tempdir().unwrap();
    write_data("vqav2", folder.path());
    let args = ["vqav2", "--tokens", "16"];
    let upload = folder.path().join("runs/vqav2-llava-v1.5-tiny-fastervlm-16/vqav2_upload.json");
    let stdout = eval(folder.path(), &[&args[..], &["--limit", "2"]].concat());
    assert!(stdout.contains("--limit leaves some out") && !upload.exists(), "{stdout}");
    eval(folder.path(), &args);
    assert!(upload.exists());
}
