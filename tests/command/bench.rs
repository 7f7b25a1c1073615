//! `secateur bench` on the built-in checkpoint: what it prints, and what it refuses.

use assert_cmd::Command;
use serde_json::Value;

fn bench(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("secateur").unwrap().arg("bench").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_measures_every_stage_and_counts_by_arithmetic() {
    let args = "--method fastervlm,fastv --budgets 64 --repeats 2 --new-tokens 3 --ceilings --json";
    let args: Vec<&str> = args.split(' ').collect();
    let (code, stdout, stderr) = bench(&args);
    assert_eq!(code, 0, "{stderr}");
    // Stdout is JSON alone; people read stderr.
    assert!(stderr.contains("2 a multiply-add") && stderr.contains("first token"), "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert!(found["instructions"].is_string() && found["kernels"].is_object(), "{found}");
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<(&str, u64, u64)> = rows
        .iter()
        .map(|row| {
            let count = |key: &str| row[key].as_u64().unwrap();
            (row["method"].as_str().unwrap(), count("tokens"), count("visual_tokens"))
        })
        .collect();
    assert_eq!(names, [("none", 576, 576), ("fastervlm", 64, 64), ("fastv", 64, 576)]);
    // Four layers of width 128, four heads, 344 inside the MLP; FastV sees all tokens in two of them.
    let layer = |n: u64| 2 * (n * 128 * (4 * 128 + 3 * 344) + 2 * n * n * 128);
    let flops: Vec<u64> = rows.iter().map(|row| row["flops"].as_u64().unwrap()).collect();
    assert_eq!(flops, [4 * layer(576), 4 * layer(64), 2 * layer(576) + 2 * layer(64)]);
    let bytes: Vec<u64> = rows.iter().map(|row| row["kv_bytes"].as_u64().unwrap()).collect();
    assert_eq!(bytes, [4 * 576, 4 * 64, 2 * 576 + 2 * 64].map(|tokens| tokens * 2 * 128 * 4));
    // Shares of what the device gives: the first row's prompt of 616 tokens, and a step's 16-bit weights and f32 keys and values.
    let number = |of: &Value, key: &str| of[key].as_f64().unwrap();
    let (product, copy) = (number(&found, "product_flops_per_s"), number(&found, "copy_bytes_per_s"));
    let operations = number(&rows[0], "prefill_share") * product * number(&rows[0], "prefill_ms") / 1e3;
    // The last layer has keys and values of all tokens, and the rest of one.
    let last = 2 * (616 * 2 * 128 * 128 + 128 * (2 * 128 + 3 * 344) + 2 * 616 * 128);
    assert!((operations / (3 * layer(616) + last) as f64 - 1.0).abs() < 1e-9, "{operations}");
    let read = number(&rows[0], "decode_share") * copy * number(&rows[0], "decode_ms_per_token") / 1e3;
    let weights = 4 * 128 * (4 * 128 + 3 * 344) + 128 * 1024;
    assert!((read / f64::from(2 * weights + 4 * 616 * 2 * 128 * 4) - 1.0).abs() < 1e-9, "{read}");
    assert!(stderr.contains(" TFLOP/s; a copy "), "{stderr}");
    for row in rows {
        for stage in ["vision_ms", "project_ms", "prefill_ms", "decode_ms_per_token"] {
            assert!(row[stage].as_f64().unwrap() > 0.0, "{stage}: {row}");
        }
        let sum: f64 =
            ["vision_ms", "prune_ms", "project_ms", "prefill_ms"].iter().map(|s| row[s].as_f64().unwrap()).sum();
        // Medians of sums are near sums of medians.
        assert!((row["ttft_ms"].as_f64().unwrap() / sum - 1.0).abs() < 0.2, "{row}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_made() {
    for (args, expected) in [
        (&["--shape", "llava-9"][..], "unknown shape `llava-9`; known: llava-1.5-7b"),
        (&["--budgets", "577"], "1 to 576"),
        (&["--tokens", "577"], "1 to 576"),
        (&["--method", "fastv", "--fastv-layer", "4"], "takes 1 to 3"),
        (&["--shape", "llava-1.5-7b", "--layers", "33"], "--layers 33 is not possible: the shape has 32"),
        (&["--model", "demo", "--layers", "3"], "--layers 3 is not possible"),
    ] {
        let (code, stdout, stderr) = bench(args);
        assert_eq!((code, stdout.as_str()), (1, ""), "{args:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(expected), "{args:?}: {stderr}");
    }
    for (args, expected) in [
        (&["--model", "demo", "--shape", "demo"][..], "cannot be used with"),
        (&["--budgets", "0"], "budget of 0"),
        (&["--budgets", "64,0%"], "0%"),
        (&["--repeats", "0"], "--repeats takes 1 or more"),
        (&["--method", "nothing"], "unknown method `nothing`"),
        (&["--model", "/nowhere", "--backend", "none"], "unknown backend `none`"),
    ] {
        let (code, _, stderr) = bench(args);
        assert!(code == 2 && stderr.contains(expected), "{args:?}: {stderr}");
    }
}
