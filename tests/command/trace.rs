//! `trace`: everything of one answer, as JSON.

use super::cli::{BOAT, last_json, path, secateur};
use crate::common::{LAYOUTS, json, tensors, worst};

#[test]
fn trace_prints_the_contract() {
    let case = &json("tiny-llava-1.5/cases.json")[0];
    let expected = &json("tiny-llava-1.5/expected/fastervlm.json")["cases"]["c1"];
    let run = &expected["runs"]["29"];
    for layout in LAYOUTS {
        let (code, stdout, stderr) = secateur(&[
            "trace",
            "--model",
            &path(layout),
            "--image",
            &path(BOAT),
            "--question",
            case["question"].as_str().unwrap(),
            "--tokens",
            "29",
            "--logits",
        ]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert_eq!(stdout.lines().count(), 1);
        let trace = last_json(&stdout);
        assert_eq!(trace["prompt_ids"], expected["input_ids"]);
        assert_eq!((&trace["crops"], &trace["patches"]), (&1.into(), &576.into()));
        assert_eq!(trace["kept"], run["kept"]);
        assert_eq!(trace["visual_tokens"], 29);
        assert_eq!(trace["output_ids"], run["output_ids"]);
        assert_eq!(trace["text"], run["text"]);
        let golden = &tensors("tiny-llava-1.5/expected/fastervlm.safetensors")["c1.29.first_logits"].values;
        let logits: Vec<f32> = crate::common::ids(&trace["logits"]);
        assert!(worst(&logits[..golden.len()], golden) < 1e-3);
        for stage in ["vision", "prune", "prefill", "decode"] {
            let time = trace["timings_ms"][stage].as_f64().unwrap();
            assert!(time > 0.0 || stage == "prune" && time == 0.0, "{stage}");
        }
    }
}

#[test]
fn trace_without_tokens_prunes_nothing() {
    let arguments = ["trace", "--model", &path(LAYOUTS[1]), "--image", &path(BOAT), "--question", "What?"];
    let (code, stdout, _) = secateur(&[&arguments[..], &["--max-new-tokens", "2"]].concat());
    let trace = last_json(&stdout);
    assert_eq!(code, 0);
    assert_eq!(trace["visual_tokens"], 576);
    assert!(trace.get("logits").is_none());
    assert!(trace["output_ids"].as_array().unwrap().len() <= 2);
}

#[test]
fn trace_shows_how_an_image_was_taken_apart() {
    let model = path("tiny-llava-1.6/llava-v1.6-vicuna-tiny");
    let image = path("tiny-llava-1.6/images/wide_300x100.png");
    let trace = |more: &[&str]| {
        let arguments = ["trace", "--model", &model, "--image", &image, "--question", "What?", "--max-new-tokens", "1"];
        let (code, stdout, stderr) = secateur(&[&arguments[..], more].concat());
        assert_eq!((code, stderr.as_str()), (0, ""));
        last_json(&stdout)
    };
    let whole = trace(&[]);
    assert_eq!(whole["anyres"], serde_json::json!({"columns": 1, "rows": 2, "merge": "spatial-unpad"}));
    assert_eq!((&whole["crops"], &whole["visual_tokens"]), (&3.into(), &776.into()));
    let pruned = trace(&["--method", "vispruner", "--tokens", "10"]);
    assert_eq!(pruned["anyres"], serde_json::json!({"columns": 2, "rows": 2, "merge": "spatial"}));
    assert_eq!((&pruned["crops"], &pruned["visual_tokens"]), (&5.into(), &50.into()));
    let other = trace(&["--method", "vispruner", "--tokens", "10", "--grid", "filled"]);
    assert_eq!(other["crops"], 4);
}
