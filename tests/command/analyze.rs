//! `secateur analyze`: attention as transformers' `output_attentions` gives it, averaged as FasterVLM's scripts do.
//!
//! | what | tolerance |
//! |---|---|
//! | `[CLS]`, and every layer's attention by all, by visual tokens, by text, by the last token | 1e-4 (values up to 0.02), and 1e-3 of the largest |
//! | cumulative shares | 1e-4 |
//! | counts of a distribution | at most 6 of 1,728 values in a neighbour's bin |

use std::path::Path;

use crate::common::{fixture, tensors, worst};

const MODEL: &str = "tiny-llava-1.5/llava-v1.5-tiny";

fn analyze(what: &str, out: &Path, more: &[&str]) -> (bool, String) {
    let (data, images, model) = (fixture("analysis/instructions.jsonl"), fixture("tiny-llava-1.5"), fixture(MODEL));
    let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
    let command = command.args(["analyze", what]).arg(data).arg("--images").arg(images).arg("--model").arg(model);
    let output = command.arg("--out").arg(out).args(more).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// The f32 tensors of a file that was written.
fn written(path: &Path) -> std::collections::BTreeMap<String, crate::common::Golden> {
    // An absolute path replaces the fixtures' folder.
    tensors(path.to_str().unwrap())
}

#[test]
fn shift_is_the_official_means() {
    let folder = tempfile::tempdir().unwrap();
    let (success, stderr) = analyze("attention-shift", folder.path(), &[]);
    assert!(success, "{stderr}");
    let (expected, found) =
        (tensors("analysis/expected.safetensors"), written(&folder.path().join("attention-shift.safetensors")));
    for name in ["cls", "full", "image", "text", "last"] {
        assert_eq!(found[name].shape, expected[name].shape, "{name}");
        let difference = worst(&found[name].values, &expected[name].values);
        let largest = expected[name].values.iter().copied().fold(0.0, f32::max);
        assert!(difference < 1e-4 && difference < 1e-3 * largest, "{name}: {difference} of {largest}");
    }
    let table = std::fs::read_to_string(folder.path().join("attention-shift.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 4 * 576);
    let second = table.lines().nth(2).unwrap().split(',').collect::<Vec<_>>();
    assert_eq!(second[..4], ["1", "2", "0", "1"]);
    assert_eq!(second[4].parse::<f32>().unwrap(), found["full"].values[1]);
    for file in [
        "cls_attn/dist.png",
        "cls_attn/map.png",
        "full_attn/dist/layer_4.png",
        "last_attn/map/layer_1.png",
        "index.html",
        "text_attn/map.png",
    ] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
}

#[test]
fn dispersion_is_the_official_distribution() {
    let folder = tempfile::tempdir().unwrap();
    let (success, stderr) = analyze("attention-dispersion", folder.path(), &[]);
    assert!(success, "{stderr}");
    let (expected, found) =
        (tensors("analysis/expected.safetensors"), written(&folder.path().join("attention-dispersion.safetensors")));
    let bytes = std::fs::read(fixture("analysis/expected.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for name in ["cls", "last"] {
        let key = format!("{name}_cumulative");
        let difference = worst(&found[&key].values, &expected[&key].values);
        assert!(difference < 1e-4, "{name}: {difference}");
        let counts = golden.tensor(&format!("{name}_counts")).unwrap().data().as_chunks::<8>().0.to_vec();
        let counts: Vec<i64> = counts.into_iter().map(i64::from_le_bytes).collect();
        let total: i64 = counts.iter().sum();
        let own: Vec<i64> = found[&format!("{name}_proportion")]
            .values
            .iter()
            .map(|share| (share * total as f32).round() as i64)
            .collect();
        assert_eq!(own.len(), counts.len());
        assert_eq!(own.iter().sum::<i64>(), total);
        let moved: i64 = own.iter().zip(&counts).map(|(a, b)| (a - b).abs()).sum();
        assert!(moved <= 12, "{name}: {moved} of {total} values are in other bins");
        assert!(folder.path().join(format!("{name}_attn_dist.png")).is_file());
    }
    assert!(folder.path().join("cdf.png").is_file());
}

#[test]
fn bad_instructions_get_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.jsonl");
    for (text, reason) in [
        ("{\"id\": 1}\n", "line 1 is no instruction"),
        ("[{\"id\": 1, \"conversations\": []}]", "there is no instruction with an image"),
        (
            "{\"image\": \"none.png\", \"conversations\": [{\"value\": \"<image>\\nWhat?\"}]}",
            "the image of an instruction is missing",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
        let output =
            command.args(["analyze", "attention-shift", "--model"]).arg(fixture(MODEL)).arg(&path).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains(reason),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
