//! `prune`: tensors exported from anywhere.

use super::cli::{last_json, secateur};
use crate::common::{indices, json, tensors, write_tensors};

#[test]
fn prune_reads_exported_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.safetensors");
    let inputs = tensors("pruners/attention/natural_b5.safetensors");
    let (attention, features) = (&inputs["cls_attentions"], &inputs["image_features"]);
    write_tensors(
        &cues,
        &[
            ("cls_attention", [&[1], &attention.shape[..]].concat(), attention.values.clone()),
            ("features", features.shape.clone(), features.values.clone()),
        ],
    );
    let file = cues.to_str().unwrap();
    for run in json("pruners/fastervlm/expected.json")["cases"]["natural_b5"]["runs"].as_array().unwrap() {
        let tokens = run["visual_token_num"].to_string();
        let (code, stdout, stderr) = secateur(&["prune", "--method", "fastervlm", "--tokens", &tokens, file]);
        assert_eq!(code, 0, "{stderr}");
        let pruned = last_json(&stdout);
        assert_eq!((&pruned["method"], &pruned["tokens"].to_string()), (&"fastervlm".into(), &tokens));
        assert_eq!(indices(&pruned["kept"]), indices(&run["kept"]));
    }

    let (code, _, stderr) = secateur(&["prune", "--tokens", "577", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("577") && stderr.contains("1 to 576"), "{stderr}");

    write_tensors(&cues, &[("features", vec![1, 4, 2], vec![0.0; 8])]);
    let (code, _, stderr) = secateur(&["prune", "--tokens", "2", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`cls_attention` [layers, crops, heads, patches]"), "{stderr}");

    write_tensors(&cues, &[("cls_attention", vec![4, 2], vec![0.0; 8])]);
    let (code, _, stderr) = secateur(&["prune", "--tokens", "2", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("[4, 2]") && stderr.contains("4 dimensions"), "{stderr}");
}

#[test]
fn prune_runs_methods_that_read_the_question() {
    let inputs = pruned_inputs("pruners/cdpruner/inputs_b1_m1.safetensors");
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.safetensors");
    write_tensors(&cues, &inputs);
    let file = cues.to_str().unwrap();
    let runs = json("pruners/cdpruner/expected.json")["cases"]["b1_m1"]["runs"].clone();
    for run in runs.as_array().unwrap() {
        let tokens = run["visual_token_num"].to_string();
        let (code, stdout, stderr) = secateur(&["prune", "--method", "cdpruner", "--tokens", &tokens, file]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(indices(&last_json(&stdout)["kept"]), indices(&run["kept"]));
    }
    let (code, _, stderr) = secateur(&["prune", "--method", "fastv", "--tokens", "9", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`prompt_attention` [heads, visual tokens]"), "{stderr}");

    let mut narrow = inputs.clone();
    narrow[2].1[1] -= 1;
    narrow[2].2.pop();
    write_tensors(&cues, &narrow);
    let (code, _, stderr) = secateur(&["prune", "--method", "cdpruner", "--tokens", "9", file]);
    assert_eq!(code, 1);
    assert!(stderr.contains("`image_embeds` is") && stderr.contains("they must agree"), "{stderr}");
}

/// CDPruner's recorded inputs under the names of a cues file; the projector is the identity.
fn pruned_inputs(name: &str) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
    let inputs = tensors(name);
    [("projected", "image_features"), ("image_embeds", "image_embeds"), ("text_embeds", "text_embeds")]
        .map(|(cue, name)| (cue, inputs[name].shape.clone(), inputs[name].values.clone()))
        .to_vec()
}

#[test]
fn what_is_missing_and_what_is_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.safetensors");
    write_tensors(&cues, &[("cls_attentions", vec![1, 1, 4], vec![0.0; 4])]);
    let file = cues.to_str().unwrap();
    for (method, wanted) in
        [("fastervlm", "`cls_attention`"), ("cdpruner", "`projected`"), ("fastv", "`prompt_attention`")]
    {
        let (code, _, stderr) = secateur(&["prune", "--method", method, "--tokens", "2", file]);
        assert_eq!(code, 1);
        for part in [wanted, "cues.safetensors has cls_attentions"] {
            assert!(stderr.contains(part), "{method}: {stderr}");
        }
    }
}

/// VisionZip's merged tokens: their patches, and the weights with which these are added up.
#[test]
fn tokens_made_of_several_patches_come_with_their_weights() {
    let folder = tempfile::tempdir().unwrap();
    let cues = folder.path().join("cues.safetensors");
    let attention: Vec<f32> = (1..=16).map(|i| i as f32 / 136.0).collect();
    let keys: Vec<f32> = (0..16 * 4).map(|i| ((i * 37) % 61) as f32 / 20.0 - 1.5).collect();
    write_tensors(&cues, &[("cls_attention", vec![1, 1, 1, 16], attention), ("keys", vec![1, 16, 4], keys)]);
    let (code, stdout, stderr) = secateur(&["prune", "--method", "visionzip", "--tokens", "8", cues.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(found["kept"][0].as_array().unwrap().len(), 8);
    let merged = found["merged"][0].as_array().unwrap();
    assert!(!merged.is_empty(), "{found}");
    for token in merged {
        let [patches, weights] = ["patches", "weights"].map(|key| token[key].as_array().unwrap());
        assert_eq!(patches.len(), weights.len(), "{token}");
        assert!(found["kept"][0].as_array().unwrap().contains(&patches[0]), "{token}");
        let rest: f64 = weights[1..].iter().map(|weight| weight.as_f64().unwrap()).sum();
        assert_eq!(weights[0], 1.0, "{token}");
        assert!(weights.len() == 1 || (rest - 1.0).abs() < 1e-12, "{token}");
    }
    let (_, stdout, _) = secateur(&["prune", "--method", "fastervlm", "--tokens", "8", cues.to_str().unwrap()]);
    assert!(!stdout.contains("merged"), "{stdout}");
}

#[test]
fn a_trace_writes_what_prune_reads() {
    let folder = tempfile::tempdir().unwrap();
    let [cues, tokens] = ["cues.safetensors", "tokens.safetensors"].map(|name| folder.path().join(name));
    let [cues, tokens] = [&cues, &tokens].map(|path| path.to_str().unwrap());
    let image = crate::common::fixture("tiny-llava-1.5/images/boat_123x90.png");
    let asked = ["trace", "--model", "demo", "--image", image.to_str().unwrap(), "--question", "Is there a ring?"];
    let method = ["--method", "visionzip", "--tokens", "64"];
    let (code, stdout, stderr) = secateur(&[&asked[..], &method, &["--cues", cues]].concat());
    assert_eq!(code, 0, "{stderr}");
    let trace = last_json(&stdout);

    // Several methods have one shape, which begins as that of one.
    let (code, stdout, stderr) = secateur(&["prune", "--method", "visionzip,fastervlm", "--tokens", "64", cues]);
    assert_eq!(code, 0, "{stderr}");
    let several = last_json(&stdout);
    assert_eq!((&several["method"], &several["kept"]), (&"visionzip".into(), &trace["kept"]));
    let methods: Vec<_> = several["results"].as_array().unwrap().iter().map(|row| row["method"].clone()).collect();
    assert_eq!(methods, ["visionzip", "fastervlm"]);

    // From standard input, with the tokens that stay: pooled ones behind the others.
    let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
    command.args(["prune", "-", "--out", tokens]).args(method).write_stdin(std::fs::read(cues).unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let piped = last_json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(piped["results"][0], several["results"][0]);
    let (given, made) = (crate::common::tensors(cues), crate::common::tensors(tokens));
    let merged = piped["merged"][0].as_array().unwrap();
    let (projected, made) = (&given["projected"], &made["tokens"]);
    assert_eq!(made.shape, [1, 64, projected.shape[2]]);
    let width = projected.shape[2];
    let row = |tensor: &crate::common::Golden, row: usize| tensor.values[row * width..][..width].to_vec();
    let first = indices(&piped["kept"])[0].iter().copied().find(|&kept| {
        merged.iter().all(|token| token["patches"].as_array().unwrap().iter().all(|patch| *patch != kept))
    });
    assert_eq!(row(made, 0), row(projected, first.unwrap()));
    let last = merged.last().unwrap();
    let numbers = |name: &str| last[name].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect::<Vec<_>>();
    let mut expected = vec![0.0; width];
    for (patch, weight) in numbers("patches").into_iter().zip(numbers("weights")) {
        let values = row(projected, patch as usize);
        expected.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * f64::from(value));
    }
    for (found, expected) in row(made, 63).into_iter().zip(expected) {
        assert!((f64::from(found) - expected).abs() < 1e-3 * (1.0 + expected.abs()), "{found}, not {expected}");
    }

    // Attention before the softmax is none.
    write_tensors(std::path::Path::new(cues), &[("cls_attention", vec![1, 1, 1, 4], vec![2.0, -1.0, 0.5, 0.0])]);
    let (code, _, stderr) = secateur(&["prune", "--method", "fastervlm", "--tokens", "2", cues]);
    assert!(code == 1 && stderr.contains("holds no probabilities") && stderr.contains("row 0"), "{stderr}");
    let (code, _, stderr) = secateur(&["prune", "--method", "fastervlm,grid", "--tokens", "2", cues, "--out", tokens]);
    assert!(code == 2 && stderr.contains("--out takes the tokens of one method"), "{stderr}");
}
