//! Every benchmark's score and upload file against the official scripts, through the command line.

use std::path::Path;

use crate::common::{fixture, json};
use assert_cmd::Command;
use secateur::task::normalise;
use serde_json::Value;

/// Runs `secateur score`, and returns the last line as JSON and the upload file, if there is one.
fn score(benchmark: &str, answers: &Path, data: &Path, upload: bool) -> Result<(Value, Vec<u8>), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload");
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["score", benchmark]).arg(answers).arg("--data").arg(data).arg("--json");
    if upload {
        command.arg("--upload").arg(&file);
    }
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let stdout = String::from_utf8(output.stdout).unwrap();
    let report = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    Ok((report, std::fs::read(&file).unwrap_or_default()))
}

fn golden(name: &str) -> std::path::PathBuf {
    fixture("scoring").join(name)
}

fn close(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 1e-12, "{found}, not {expected}");
}

#[test]
fn answers_are_normalised_as_evalai_does() {
    let cases = json("scoring/answer_processor/expected.json");
    for case in cases.as_array().unwrap() {
        let text = case["in"].as_str().unwrap();
        assert_eq!(normalise(text), case["out"].as_str().unwrap(), "{text:?}");
    }
    assert!(cases.as_array().unwrap().len() >= 60);
}

#[test]
fn pope_scores_as_the_official_script() {
    let (report, _) = score("pope", &golden("pope/answers.jsonl"), &golden("pope"), false).unwrap();
    let expected = json("scoring/pope/expected.json");
    for category in ["adversarial", "popular", "random"] {
        for figure in ["f1", "accuracy", "precision", "recall", "yes_ratio"] {
            close(&report["metrics"][format!("{figure}_{category}")], expected[category][figure].as_f64().unwrap());
        }
    }
    close(&report["metrics"]["f1_mean"], expected["average_f1"].as_f64().unwrap());
}

/// The official script matches labels by order and scores anything.
#[test]
fn pope_refuses_labels_that_are_not_those_of_the_questions() {
    let folder = tempfile::tempdir().unwrap();
    crate::common::copy_folder(&golden("pope/coco"), &folder.path().join("coco"));
    std::fs::copy(golden("pope/questions.jsonl"), folder.path().join("llava_pope_test.jsonl")).unwrap();
    let labels = folder.path().join("coco/coco_pope_random.json");
    let text = std::fs::read_to_string(&labels).unwrap();
    let first = text.lines().next().unwrap();
    let refused = |text: String| {
        std::fs::write(&labels, text).unwrap();
        score("pope", &golden("pope/answers.jsonl"), folder.path(), false).unwrap_err()
    };
    let longer = refused(format!("{text}{first}\n"));
    assert!(longer.contains("17 labels for 16 random questions, of which the first 16 belong together"), "{longer}");
    let other = refused(text.replacen("Is there", "Is here", 2));
    assert!(other.contains("of which the first 0 belong together"), "{other}");
}

#[test]
fn scienceqa_scores_as_the_official_script() {
    let (report, _) = score("scienceqa", &golden("science_qa/answers.jsonl"), &golden("science_qa"), false).unwrap();
    let expected = json("scoring/science_qa/expected_result.json");
    close(&report["metrics"]["acc"], expected["acc"].as_f64().unwrap() / 100.0);
    close(&report["metrics"]["img_acc"], 0.375);
    // The script's own output is read as answers too.
    let judged = golden("science_qa/expected_output.json");
    let (again, _) = score("scienceqa", &judged, &golden("science_qa"), false).unwrap();
    assert_eq!(again["metrics"], report["metrics"]);
}

#[test]
fn textvqa_scores_as_the_official_script() {
    let (report, _) = score("textvqa", &golden("textvqa/answers.jsonl"), &golden("textvqa"), false).unwrap();
    close(&report["metrics"]["acc"], json("scoring/textvqa/expected.json")["accuracy"].as_f64().unwrap());
}

#[test]
fn seed_bench_scores_as_the_official_script_and_where_it_crashes() {
    let (report, upload) = score("seed-bench", &golden("seed/answers.jsonl"), &golden("seed"), true).unwrap();
    for figure in ["acc", "acc_image", "acc_video", "Scene Understanding", "Instance Identity", "Action Recognition"] {
        close(&report["metrics"][figure], 2.0 / 3.0);
    }
    assert_eq!(upload, std::fs::read(golden("seed/expected_upload.jsonl")).unwrap());
    let (report, _) = score("seed-bench", &golden("seed_crash/answers.jsonl"), &golden("seed_crash"), false).unwrap();
    assert_eq!(report["metrics"]["Scene Understanding"], 0.0);
}

#[test]
fn upload_files_are_the_official_ones_byte_for_byte() {
    for (benchmark, folder, answers, expected) in [
        ("gqa", "gqa", "answers.jsonl", "expected_upload.json"),
        ("vizwiz", "vizwiz", "answers.jsonl", "expected_upload.json"),
        ("vqav2", "vqav2", "answers/merge.jsonl", "expected_upload.json"),
        ("mm-vet", "mmvet", "answers.jsonl", "expected_upload.json"),
    ] {
        let data = golden(folder);
        let (_, upload) = score(benchmark, &data.join(answers), &data, true).unwrap();
        let wanted = std::fs::read(data.join(expected)).unwrap();
        assert!(upload == wanted, "{benchmark}: {}", String::from_utf8_lossy(&upload));
    }
}

/// A line that is no answer and a question that is answered twice are passed over as the converter does, but not silently.
#[test]
fn what_is_passed_over_is_said() {
    let data = golden("vqav2");
    let (report, _) = score("vqav2", &data.join("answers/merge.jsonl"), &data, false).unwrap();
    let notes = report["notes"].to_string();
    assert!(notes.contains("1 line of the file is no answer"), "{notes}");
    assert!(notes.contains("1 answer(s) are to questions that are answered again later"), "{notes}");
    let missing = score("vizwiz", &golden("gqa/answers.jsonl"), &golden("vizwiz"), true).unwrap_err();
    assert!(missing.contains("question 0 has no answer"), "{missing}");
}

/// Answers on which the two protocols differ.
#[test]
fn lmms_evals_rules_give_its_scores() {
    let expected = json("scoring/lmms-eval/expected.json");
    for (benchmark, folder) in [
        ("pope", "pope"),
        ("seed-bench", "seed"),
        ("scienceqa", "scienceqa"),
        ("gqa", "gqa"),
        ("vqav2", "vqav2"),
        ("vizwiz", "vizwiz"),
        ("mmbench", "mmbench"),
    ] {
        let data = golden("lmms-eval").join(folder);
        let args = ["score", benchmark, "--protocol", "lmms-eval", "--json", "--data"];
        let mut command = Command::cargo_bin("secateur").unwrap();
        let output = command.args(args).arg(&data).arg(data.join("answers.jsonl")).output().unwrap();
        assert!(output.status.success(), "{benchmark}: {}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8(output.stdout).unwrap();
        let report: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        assert_eq!(report["protocol"], "lmms-eval");
        let figures = expected[folder].as_object().unwrap().iter().filter(|(_, figure)| figure.is_number());
        assert!(figures.clone().count() > 0, "{benchmark}");
        for (name, figure) in figures {
            let found = report["metrics"][name].as_f64().unwrap_or(f64::NAN);
            assert!((found - figure.as_f64().unwrap()).abs() < 1e-12, "{benchmark}: {name} {found}, not {figure}");
        }
    }
}

#[test]
fn mmbench_writes_the_official_workbook_and_reads_it_back() {
    let (report, workbook) = score("mmbench", &golden("mmbench/exp1.jsonl"), &golden("mmbench"), true).unwrap();
    close(&report["metrics"]["circular_acc"], 1.0 / 7.0);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.xlsx");
    std::fs::write(&path, workbook).unwrap();

    let rows = cells(&path);
    let expected = json("scoring/mmbench/expected_sheet.json");
    let expected = expected["rows"].as_array().unwrap();
    assert_eq!(rows.len(), expected.len());
    for (row, wanted) in rows.iter().zip(expected) {
        let wanted = wanted.as_array().unwrap();
        assert_eq!(wanted.len(), 9);
        assert!(row.keys().all(|column| usize::from(*column - b'A') < wanted.len()), "{row:?}");
        for (column, wanted) in (b'A'..).zip(wanted) {
            let text = wanted.as_str().map_or_else(|| wanted.to_string(), str::to_owned);
            let found = row.get(&column).map_or("", String::as_str);
            assert_eq!(found, if wanted.is_null() { "" } else { &text });
        }
    }
    // Alone, without the table: the dev split's workbook has the labels.
    let (again, _) = score("mmbench", &path, folder.path(), false).unwrap();
    assert_eq!(again["metrics"], report["metrics"]);
}

/// The cells of a workbook's sheet that hold something, by their columns' letters: read without the reader that is tested.
fn cells(path: &std::path::Path) -> Vec<std::collections::BTreeMap<u8, String>> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut part = |name: &str| {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut archive.by_name(name).unwrap(), &mut text).unwrap();
        text
    };
    let inside = |text: &str, from: &str, to: &str| -> Vec<String> {
        text.split(from).skip(1).map(|rest| rest.split(to).next().unwrap().to_owned()).collect()
    };
    let plain =
        |text: &str| text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    let strings = inside(&part("xl/sharedStrings.xml"), "<si>", "</si>");
    let strings: Vec<String> =
        strings.iter().map(|item| plain(item.split_once('>').unwrap().1.trim_end_matches("</t>"))).collect();
    let cell = |cell: &String| {
        let value = inside(cell, "<v>", "</v>").pop()?;
        let is_shared = cell.split('>').next().unwrap().contains("t=\"s\"");
        Some((cell.as_bytes()[0], if is_shared { strings[value.parse::<usize>().unwrap()].clone() } else { value }))
    };
    let rows = inside(&part("xl/worksheets/sheet1.xml"), "<row ", "</row>");
    rows.iter().map(|row| inside(row, "<c r=\"", "</c>").iter().filter_map(cell).collect()).collect()
}

/// Circular: every rotation must be right; single: the first ones count.
#[test]
fn mmbench_counts_rotations_together() {
    let folder = tempfile::tempdir().unwrap();
    let row = |index: u32, answer: &str| format!("{index}\tQ?\tred\tblue\t{answer}\tdev\n");
    let rotated = [(1, "A"), (1_000_001, "B"), (2, "B"), (1_000_002, "A"), (3, "A")].map(|(i, a)| row(i, a)).concat();
    let table = format!("index\tquestion\tA\tB\tanswer\tsplit\n{rotated}");
    std::fs::write(folder.path().join("mmbench_dev_20230712.tsv"), table).unwrap();
    let answer = |index: u32, text: &str| format!("{{\"question_id\": {index}, \"text\": \"{text}\"}}\n");
    let said = [(1, "A"), (1_000_001, "B"), (2, "B"), (1_000_002, "B"), (3, "A.")].map(|(i, a)| answer(i, a)).concat();
    let answers = folder.path().join("answers.jsonl");
    std::fs::write(&answers, said).unwrap();
    let (report, _) = score("mmbench", &answers, folder.path(), false).unwrap();
    close(&report["metrics"]["circular_acc"], 1.0 / 3.0);
    close(&report["metrics"]["single_acc"], 2.0 / 3.0);
}

/// A question that is answered twice counts once, with its last answer, in scores and in uploads.
#[test]
fn the_last_answer_counts() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("answers.jsonl");
    let line = |id: u32, text: &str| format!("{{\"question_id\": {id}, \"text\": \"{text}\"}}\n");
    std::fs::write(&answers, [line(0, "yes"), line(1, "b"), line(0, "No.")].concat()).unwrap();
    let (_, upload) = score("mm-vet", &answers, folder.path(), true).unwrap();
    assert_eq!(String::from_utf8(upload).unwrap(), "{\n  \"v1_0\": \"No.\",\n  \"v1_1\": \"b\"\n}");
    let labels = r#"{"0": {"answer": "no"}, "1": {"answer": "c"}, "2": {"answer": "d"}}"#;
    std::fs::write(folder.path().join("testdev_balanced_questions.json"), labels).unwrap();
    let (report, _) = score("gqa", &answers, folder.path(), false).unwrap();
    assert_eq!((&report["n"], &report["metrics"]["acc"]), (&2.into(), &0.5.into()));
    assert!(report["notes"].to_string().contains("1 of 3 questions have no answer and are left out"), "{report}");
}

#[test]
fn empty_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let answers = folder.path().join("answers.jsonl");
    std::fs::write(&answers, "\n").unwrap();
    for benchmark in secateur::task::TASKS {
        let refused = score(benchmark.name(), &answers, folder.path(), false).unwrap_err();
        assert!(refused.contains("there is no answer in this file"), "{}: {refused}", benchmark.name());
    }
}

#[cfg(unix)]
#[test]
fn an_upload_goes_where_a_link_or_a_pipe_leads() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file.json"), folder.path().join("link.json"));
    std::fs::write(&file, "old").unwrap();
    std::os::unix::fs::symlink("file.json", &link).unwrap();
    let upload = |to: &Path| {
        let mut command = Command::cargo_bin("secateur").unwrap();
        command.args(["score", "gqa"]).arg(golden("gqa/answers.jsonl")).arg("--data").arg(golden("gqa"));
        let output = command.arg("--upload").arg(to).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    upload(&link);
    let wanted = std::fs::read_to_string(golden("gqa/expected_upload.json")).unwrap();
    assert!(link.is_symlink() && std::fs::read_to_string(&file).unwrap() == wanted);
    assert!(upload(Path::new("/dev/stdout")).contains(&wanted));
    std::fs::remove_file(&file).unwrap();
    upload(&link);
    assert!(link.is_symlink() && std::fs::read_to_string(&file).unwrap() == wanted, "a link to nothing yet");
}

/// The server's workbook has the labels.
#[test]
fn a_workbook_is_scored_without_the_data_set() {
    let folder = tempfile::tempdir().unwrap();
    let sheet = folder.path().join("sheet.xlsx");
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.args(["score", "mmbench"]).arg(golden("mmbench/exp1.jsonl")).arg("--data").arg(golden("mmbench"));
    assert!(command.arg("--upload").arg(&sheet).output().unwrap().status.success());
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", folder.path()).current_dir(folder.path());
    let output = command.args(["score", "mmbench", "sheet.xlsx"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("circular_acc"));
}
