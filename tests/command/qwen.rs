//! Models with images of any size on the command line: several images, conversations in files, limits of pixels.

use serde_json::{Value, json};

use super::cli::{last_json, path, secateur};
use crate::common::{fixture, json as read};

const MODEL: &str = "qwen/tiny-qwen2.5-vl/checkpoint";

fn image(name: &str) -> String {
    path(&format!("qwen/images/{name}"))
}

/// Traces with the tiny Qwen2.5-VL.
fn trace(more: &[&str]) -> (i32, Value, String) {
    let model = path(MODEL);
    let (code, stdout, stderr) = secateur(&[&["trace", "--model", &model][..], more].concat());
    (code, if code == 0 { last_json(&stdout) } else { Value::Null }, stderr)
}

#[test]
fn a_conversation_is_traced_as_transformers_runs_it() {
    let case = &read("qwen/cases.json")["c2_two_images"];
    let expected = read("qwen/tiny-qwen2.5-vl/expected/c2_two_images.json");
    let run = &read("qwen/tiny-qwen2.5-vl/expected/cdpruner.json")["runs"]["c2_two_images"]["37"];
    let folder = tempfile::tempdir().unwrap();
    let mut messages = case["messages"].clone();
    for part in messages[0]["content"].as_array_mut().unwrap().iter_mut().filter(|part| part["type"] == "image") {
        // Paths are relative to the file.
        let name = part["image"].as_str().unwrap().to_owned();
        std::fs::copy(fixture("qwen/images").join(&name), folder.path().join(&name)).unwrap();
    }
    let file = folder.path().join("messages.json");
    std::fs::write(&file, messages.to_string()).unwrap();
    let embeds = folder.path().join("embeds.safetensors");
    let (file, embeds_path) = (file.to_str().unwrap(), embeds.to_str().unwrap());
    let asked = ["--messages", file, "--method", "cdpruner", "--tokens", "37%", "--logits", "--embeds", embeds_path];
    let (code, found, stderr) = trace(&asked);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(found["prompt_ids"], expected["input_ids"]);
    assert_eq!(found["kept"], run["kept"]);
    let ids = run["greedy_ids"].as_array().unwrap();
    assert_eq!(found["output_ids"].as_array().unwrap()[..4], ids[..4]);
    assert_eq!(found["next_position"], expected["next_position"]);
    // Text keeps its positions, and tokens those of their places in the images.
    let (axes, all) = (found["positions"].as_array().unwrap(), expected["position_ids"].as_array().unwrap());
    assert_eq!(axes.len(), 3);
    assert_eq!(axes[0].as_array().unwrap().len() as u64, run["prefill_len"].as_u64().unwrap());
    let starts = expected["segments"].as_array().unwrap();
    let (start, first) = (starts[0]["start"].as_u64().unwrap() as usize, run["kept"][0][0].as_u64().unwrap() as usize);
    for (axis, all) in axes.iter().zip(all) {
        let (axis, all) = (axis.as_array().unwrap(), all.as_array().unwrap());
        assert_eq!(axis[..start], all[..start]);
        assert_eq!(axis[start], all[start + first]);
    }
    let stored = safetensors::SafeTensors::deserialize(std::fs::read(&embeds).unwrap().leak()).unwrap();
    let tokens: u64 = starts.iter().map(|segment| segment["tokens"].as_u64().unwrap()).sum();
    assert_eq!(stored.tensor("visual").unwrap().shape(), [tokens as usize, 128]);
    assert_eq!(stored.tensor("cue").unwrap().shape(), [tokens as usize]);
}

#[test]
fn images_and_videos_are_read_in_their_order() {
    let (gray, frames) = (image("gray_148x110.png"), path("qwen/video"));
    let grids = |found: &Value| found["grids"].clone();
    let ask = ["--question", "Which comes first?", "--tokens", "3", "--max-new-tokens", "1"];
    let (_, found, _) = trace(&[&["--image", &gray, "--video", &frames][..], &ask].concat());
    assert_eq!(grids(&found), json!([[4, 5], [4, 5], [4, 5], [4, 5], [4, 5]]));
    assert_eq!(found["frames"], json!([0, 1, 2, 3, 4, 5, 6, 7]));
    let strip = image("strip_702x24.png");
    let (_, one, _) = trace(&[&["--image", &gray, "--image", &strip][..], &ask].concat());
    let (_, other, _) = trace(&[&["--image", &strip, "--image", &gray][..], &ask].concat());
    assert_eq!((grids(&one), grids(&other)), (json!([[4, 5], [1, 25]]), json!([[1, 25], [4, 5]])));
    // A budget above an image's tokens keeps them all.
    let (_, all, _) = trace(&["--image", &gray, "--question", "?", "--tokens", "64", "--max-new-tokens", "1"]);
    assert_eq!(all["visual_tokens"], 20);
}

#[test]
fn limits_of_pixels_are_the_users() {
    let gray = image("gray_148x110.png");
    let ask = ["--image", &gray, "--question", "What?", "--max-new-tokens", "1"];
    let (_, small, _) = trace(&[&ask[..], &["--min-pixels", "784", "--max-pixels", "4000"]].concat());
    assert_eq!(small["grids"], json!([[1, 2]]));
    let (code, _, stderr) = trace(&[&ask[..], &["--min-pixels", "9000", "--max-pixels", "4000"]].concat());
    assert!(code == 2 && stderr.contains("min_pixels is 9000 and max_pixels 4000"), "{code} {stderr}");
    let (code, _, stderr) = secateur(&["ask", "--model", "demo", "--max-pixels", "4000", &gray, "What?"]);
    assert!(code == 2 && stderr.contains("--max-pixels: images are read at one size"), "{code} {stderr}");
}

#[test]
fn methods_that_need_clip_are_refused_by_name() {
    let gray = image("gray_148x110.png");
    for (method, reason) in [("trim", "CLIP's text"), ("datp", "no [CLS]")] {
        let (code, _, stderr) = trace(&["--image", &gray, "--question", "?", "--method", method, "--tokens", "4"]);
        assert!(code == 1 && stderr.contains(method) && stderr.contains(reason), "{code} {stderr}");
    }
}

/// The penalty of the checkpoint's settings is the default of `ask`, which says so, and of `trace` only when it is told.
#[test]
fn a_penalty_for_repetition_is_said() {
    let with = &read("qwen/tiny-qwen2.5-vl/expected/c1_single.json")["generate_with_own_repetition_penalty"];
    let (photo, question) = (image("photo_210x126.png"), read("qwen/cases.json")["c1_single"].clone());
    let question = question["messages"][0]["content"][1]["text"].as_str().unwrap().to_owned();
    let (_, found, _) = trace(&["--image", &photo, "--question", &question, "--repetition-penalty", "1.05"]);
    assert_eq!(found["output_ids"].as_array().unwrap()[..], with["ids"].as_array().unwrap()[..16]);
    let (code, _, stderr) = secateur(&["ask", "--model", &path(MODEL), &photo, &question, "--max-new-tokens", "2"]);
    assert!(code == 0 && stderr.contains("a penalty for repetition of 1.05"), "{code} {stderr}");
}

#[test]
fn messages_that_cannot_be_answered_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.json");
    let name = file.to_str().unwrap();
    let user = json!({"role": "user", "content": "Hi"});
    for (messages, reason) in [
        (json!({"role": "user"}), "messages.json"),
        (json!([]), "expected to be a user's"),
        (json!([user, user]), "a user's behind a user's"),
        (json!([{"role": "assistant", "content": "Hi"}]), "a user's is expected before it"),
        (json!([user, {"role": "assistant", "content": "Hi"}]), "expected to be a user's"),
        (json!([user, {"role": "system", "content": "Hi"}]), "only the first may be"),
        (json!([{"role": "system", "content": "an <image>"}, user]), "stands for a user's image"),
        (json!([{"role": "user", "content": [{"type": "audio"}]}]), "the type `audio`"),
        (json!([{"role": "user", "content": [{"type": "image", "image": "missing.png"}]}]), "missing.png"),
        (json!([{"role": "user", "content": [{"type": "image", "image": "https://a.b/c.png"}]}]), "download it first"),
        (json!([{"role": "user", "content": [{"type": "video", "video": []}]}]), "an empty list"),
        (json!([{"role": "user", "content": [{"type": "video", "video": "a.mp4", "fps": 0}]}]), "`fps` is 0"),
        (json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:nothing"}}]}]), "base64"),
    ] {
        std::fs::write(&file, messages.to_string()).unwrap();
        let (code, _, stderr) = secateur(&["ask", "--model", &path(MODEL), "--messages", name]);
        assert!(code == 1 && stderr.contains(reason), "{messages}: {code} {stderr}");
    }
}

/// A slice of a video stands as many positions behind the one before it as its seconds say, and a model has positions enough for so many only.
#[test]
fn a_video_that_is_too_slow_for_the_positions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.json");
    let frames: Vec<String> = (0..4).map(|i| path(&format!("qwen/video/frame_{i}.png"))).collect();
    for fps in [1e-4, 1e-300] {
        let video = json!({"type": "video", "video": frames, "fps": fps});
        std::fs::write(&file, json!([{"role": "user", "content": [video]}]).to_string()).unwrap();
        let (code, _, stderr) = trace(&["--messages", file.to_str().unwrap()]);
        assert!(code == 1 && stderr.starts_with("error: ") && stderr.contains("32768"), "{code} {stderr}");
    }
}
