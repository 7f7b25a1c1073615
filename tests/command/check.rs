//! `secateur check`, and operations that go by their reference bodies.

use assert_cmd::Command;
use serde_json::Value;

use super::cli::secateur;

#[test]
fn the_default_backend_is_right() {
    let (code, stdout, stderr) = secateur(&["check", "--json"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stderr.contains("built-in checkpoint") && !stderr.contains("WRONG"), "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["ok"], true);
    assert_eq!(found["backend"], "flex");
    let rows = found["rows"].as_array().unwrap();
    for operation in ["linear", "attend", "silu_mul", "rms_norm", "layer_norm", "apply_rope", "greedy_dpp"] {
        let of = || rows.iter().filter(|row| row["operation"] == operation);
        assert!(of().count() > 0 && of().all(|row| row["ok"] == true && row["error"].is_number()), "{operation}");
    }
    for weights in ["f32", "f16", "bf16"] {
        assert!(rows.iter().any(|row| row["weights"] == weights), "{weights}");
        assert!(found["checkpoint"].as_array().unwrap().iter().any(|row| row["weights"] == weights), "{weights}");
    }
}

#[test]
fn reference_bodies_answer_the_same() {
    let (one, other, third) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let eval = |out: &std::path::Path, variable: Option<&str>, more: &[&str]| {
        let mut command = Command::cargo_bin("secateur").unwrap();
        command.args(["eval", "demo", "--model", "demo", "--method", "cdpruner", "--tokens", "64", "--limit", "8"]);
        command.arg("--out").arg(out).args(more);
        if let Some(variable) = variable {
            command.env("SECATEUR_REFERENCE", variable);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read_to_string(out.join("demo-demo-cdpruner-64/answers.jsonl")).unwrap()
    };
    let all = "linear,attend,silu_mul,quick_gelu,exact_gelu,add_bias,rms_norm,layer_norm,apply_rope,write_positions,greedy_dpp";
    let own = eval(one.path(), None, &[]);
    assert_eq!(eval(other.path(), None, &["--reference", all]), own);
    assert_eq!(eval(third.path(), Some("attend,linear"), &[]), own);
    let (code, _, stderr) = secateur(&["ask", "a.png", "What?", "--reference", "attention"]);
    assert!(code == 2 && stderr.contains("no operation; there are linear, attend"), "{stderr}");
}
