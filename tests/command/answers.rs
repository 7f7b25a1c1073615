//! Files of answers: in every encoding and form in which people have them, with answers that no rule can read, and with holes.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::cli::{last_json, secateur};
use crate::common::{copy_folder, fixture};

/// The score of `answers` by `benchmark`'s rule.
fn score(benchmark: &str, answers: &Path, data: &Path, more: &[&str]) -> (i32, String, String) {
    let [answers, data] = [answers, data].map(|path| path.to_str().unwrap());
    secateur(&[&["score", benchmark, answers, "--data", data, "--json"], more].concat())
}

/// POPE's fixture, and its answers as `change` leaves them.
fn pope(change: impl FnOnce(&mut Vec<Value>)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("scoring/pope/coco"), &folder.path().join("coco"));
    std::fs::copy(fixture("scoring/pope/questions.jsonl"), folder.path().join("questions.jsonl")).unwrap();
    let text = std::fs::read_to_string(fixture("scoring/pope/answers.jsonl")).unwrap();
    let mut answers = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    change(&mut answers);
    let lines: String = answers.iter().map(|answer| format!("{answer}\n")).collect();
    std::fs::write(folder.path().join("answers.jsonl"), lines).unwrap();
    folder
}

#[test]
fn answers_that_no_rule_can_read_are_counted_with_an_example() {
    let folder = pope(|answers| {
        answers[0]["text"] = json!("");
        answers[1]["text"] = json!("Perhaps a \u{1b}[31mcar");
    });
    let (code, stdout, stderr) = score("pope", &folder.path().join("answers.jsonl"), folder.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    let notes = last_json(&stdout)["notes"].to_string();
    // The fixture has two empty answers of its own.
    assert!(notes.contains("3 of 47 answers are empty, and count as yes"), "{notes}");
    assert!(notes.contains("8 of 47 answers say neither yes nor no") && notes.contains("Perhaps a"), "{notes}");
    assert!(!stdout.contains('\u{1b}'), "{stdout}");
    let sound = pope(|answers| answers.iter_mut().for_each(|answer| answer["text"] = json!("No, there is none.")));
    let (_, stdout, _) = score("pope", &sound.path().join("answers.jsonl"), sound.path(), &[]);
    let notes = last_json(&stdout)["notes"].to_string();
    assert!(!notes.contains("neither yes nor no") && !notes.contains("empty"), "{stdout}");
}

#[test]
fn encoding_marks_and_arrays_change_no_score() {
    let folder = pope(|_| {});
    let path = folder.path().join("answers.jsonl");
    let (_, expected, _) = score("pope", &path, folder.path(), &[]);
    let text = std::fs::read_to_string(&path).unwrap();
    let utf16 = |mark: u16, bytes: fn(u16) -> [u8; 2]| {
        std::iter::once(mark).chain(text.encode_utf16()).flat_map(bytes).collect::<Vec<u8>>()
    };
    let array = format!("[{}]", text.lines().collect::<Vec<_>>().join(",\n"));
    for (what, bytes) in [
        ("a mark of UTF-8", [&b"\xef\xbb\xbf"[..], text.as_bytes()].concat()),
        ("UTF-16, little endian", utf16(0xfeff, u16::to_le_bytes)),
        ("UTF-16, big endian", utf16(0xfeff, u16::to_be_bytes)),
        ("an array", array.clone().into_bytes()),
        ("an array behind a mark", [&b"\xef\xbb\xbf"[..], array.as_bytes()].concat()),
        ("line ends of Windows", text.replace('\n', "\r\n").into_bytes()),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let (code, found, stderr) = score("pope", &path, folder.path(), &[]);
        assert_eq!((code, &found), (0, &expected), "{what}: {stderr}");
    }
    std::fs::write(&path, b"{\"question_id\": 1, \"text\": \"caf\xe9\"}\n").unwrap();
    let (code, _, stderr) = score("pope", &path, folder.path(), &[]);
    assert!(code == 1 && stderr.contains("answers.jsonl") && stderr.contains("UTF-8"), "{stderr}");
}

#[test]
fn an_upload_with_holes_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let answers = folder.path().join("answers.jsonl");
    write("answers.jsonl", "{\"question_id\": \"1\", \"text\": \"a boat\"}\n");
    let upload = folder.path().join("upload.json");
    let more = ["--upload", upload.to_str().unwrap()];
    for (benchmark, questions) in [("gqa", "llava_gqa_testdev_balanced.jsonl"), ("mm-vet", "llava-mm-vet.jsonl")] {
        let (code, stdout, stderr) = score(benchmark, &answers, folder.path(), &more);
        assert_eq!(code, 0, "{stderr}");
        assert!(last_json(&stdout)["notes"].to_string().contains(&format!("{questions} is not in")), "{stdout}");
        let line = |id: usize| json!({"question_id": id.to_string(), "image": "1.jpg", "text": "What?"}).to_string();
        write(questions, &[line(1), line(2), line(3)].join("\n"));
        let (code, stdout, stderr) = score(benchmark, &answers, folder.path(), &more);
        assert_eq!(code, 0, "{stderr}");
        assert!(last_json(&stdout)["notes"].to_string().contains("2 of 3 questions have no answer"), "{stdout}");
    }
}
