//! The four sets of questions about videos, from clips to a judged score.

use std::path::Path;

use super::video::{MODEL, clip, ffmpeg_is_there, gif, secateur};
use crate::common::{fixture, judge::Server};
use serde_json::{Value, json};

/// Three questions about two clips of a set: a folder of frames, and a GIF, or an MP4 where ffmpeg is.
fn write_set(data: &Path, videos: &str, prefix: &str) {
    let folder = data.join(videos);
    crate::common::copy_folder(&fixture("tiny-video-llava/video/frames"), &folder.join(format!("{prefix}one")));
    if ffmpeg_is_there() {
        clip(&folder.join(format!("{prefix}two.mp4")), &["-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    } else {
        gif(&folder.join(format!("{prefix}two.gif")), 9);
    }
    let asked =
        [("one", "what moves?", "square"), ("one", "what color is it?", "red"), ("two", "what is shown?", "a clock")];
    let id = |i: usize| format!("v_{i}");
    let questions = asked
        .iter()
        .enumerate()
        .map(|(i, (name, question, _))| json!({"video_name": name, "question": question, "question_id": id(i)}));
    let labels =
        asked.iter().enumerate().map(|(i, (.., answer))| json!({"answer": answer, "type": 1, "question_id": id(i)}));
    std::fs::write(data.join("test_q_1k.json"), Value::from_iter(questions).to_string()).unwrap();
    std::fs::write(data.join("test_a_1k.json"), Value::from_iter(labels).to_string()).unwrap();
}

#[test]
fn the_four_sets_run_from_clips_to_a_judged_score() {
    let server = Server::start(|request, _| {
        let text = crate::common::judge::asked(request);
        let verdict = match text {
            text if text.contains("what moves?") => "{'pred': 'yes', 'score': 4.8}",
            text if text.contains("what color") => "Here it is: {\"pred\": \"No\", \"score\": \"2\"}",
            _ => "{'pred': 'unsure', 'score': 0}",
        };
        (200, verdict.to_owned())
    });
    for (set, videos, prefix) in [
        ("tgif-qa", "mp4", ""),
        ("msvd-qa", "videos", ""),
        ("msrvtt-qa", "videos/all", ""),
        ("activitynet-qa", "all_test", "v_"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join("data"), folder.path().join("runs"));
        write_set(&data, videos, prefix);
        let (model, data, out) = (fixture(MODEL), data.to_str().unwrap(), out.to_str().unwrap());
        let run =
            ["eval", set, "--json", "--tokens", "26", "--model", model.to_str().unwrap(), "--data", data, "--out", out];
        let judge = ["--judge-url", &server.url];
        let output = secateur(&[&run[..], &judge].concat());
        assert!(output.status.success(), "{set}: {}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        // One yes, one no, one neither; 4, 2 and 0 points.
        assert_eq!(report["metrics"]["accuracy"], 0.5, "{set}");
        assert_eq!(report["metrics"]["score"], 2.0, "{set}");
        assert!(report["metrics"]["contains"].is_number() && report["metrics"]["exact"].is_number());
        let notes = report["notes"].to_string();
        assert!(notes.contains("1 answer(s) are neither right nor wrong"), "{notes}");
        assert!(notes.contains("judged by gpt-3.5-turbo (gpt-3.5-turbo-1106) at"), "{notes}");
        let results = Path::new(out).join(format!("{set}-Video-LLaVA-tiny-fastervlm-26/merge.jsonl"));
        let results = std::fs::read_to_string(results).unwrap();
        let first: Value = serde_json::from_str(results.lines().next().unwrap()).unwrap();
        assert_eq!((first["id"].as_str(), first["answer"].as_str()), (Some("v_0"), Some("square")));
        assert_eq!(results.lines().count(), 3);
    }
}

#[test]
fn a_score_says_what_is_missing_and_takes_no_other_benchmarks_instruction() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), "videos", "");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let line = |id: &str| json!({"question_id": id, "text": "a square", "answer_id": null, "metadata": null});
    std::fs::write(path("answers.jsonl"), format!("{}\n{}\n", line("v_0"), line("v_9"))).unwrap();
    std::fs::write(path("rule.json"), "{}").unwrap();
    let score = ["score", "msvd-qa", &path("answers.jsonl"), "--data", folder.path().to_str().unwrap()];
    let output = secateur(&score);
    let stdout = String::from_utf8_lossy(&output.stdout);
    for note in ["2 of 3 questions have no answer and are left out", "1 answer(s) are to none of these questions"] {
        assert!(stdout.contains(note), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    }
    let judge = ["--judge-url", "http://127.0.0.1:9", "--judge-prompt", &path("rule.json")];
    let output = secateur(&[&score[..], &judge].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && stderr.contains("is one text, not a JSON object"), "{stderr}");
}

#[test]
fn a_set_with_a_missing_video_or_for_another_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), "videos", "");
    let (data, out) = (folder.path().to_str().unwrap(), folder.path().join("runs"));
    let eval = |model: &str| {
        let model = fixture(model);
        let run = ["eval", "msvd-qa", "--tokens", "16", "--data", data, "--out", out.to_str().unwrap(), "--model"];
        let output = secateur(&[&run[..], &[model.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let stderr = eval("tiny-llava-1.5/llava-v1.5-tiny");
    assert!(stderr.contains("video, and this model sees images only"), "{stderr}");
    // What reads them is looked for before weights are.
    if ffmpeg_is_there() {
        let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
        command.env("PATH", "").args(["eval", "msvd-qa", "--tokens", "16", "--data", data, "--out"]).arg(&out);
        let output = command.arg("--model").arg(fixture(MODEL)).output().unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("which is not on this machine"));
    }
    std::fs::remove_dir_all(folder.path().join("videos/one")).unwrap();
    let stderr = eval(MODEL);
    assert!(stderr.contains("the videos of 2 of 3 questions are missing, one first"), "{stderr}");
    assert!(!out.exists());
}
