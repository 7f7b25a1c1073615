//! Nothing wrong without a word: checkpoints and numbers that are not what they seem.

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

use super::cli::{BOAT, path, secateur};
use crate::common::{LAYOUTS, copy_folder, damaged_copy, fixture};

/// A tensor of a file: name, type, shape and bytes.
type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// A copy of the tiny checkpoint in llava-hf's layout, its tensors changed, in one file.
fn changed(change: impl FnOnce(&mut Vec<Stored>)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture(LAYOUTS[1]), folder.path());
    let mut tensors: Vec<Stored> = Vec::new();
    for number in 1..=2 {
        let shard = folder.path().join(format!("model-0000{number}-of-00002.safetensors"));
        let bytes = std::fs::read(&shard).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let stored = |(name, view): (&str, TensorView)| {
            (name.to_owned(), view.dtype(), view.shape().to_vec(), view.data().to_vec())
        };
        tensors.extend(file.iter().map(stored));
        std::fs::remove_file(shard).unwrap();
    }
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    change(&mut tensors);
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name.clone(), TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, &folder.path().join("model.safetensors")).unwrap();
    folder
}

fn tensor<'t>(tensors: &'t mut [Stored], name: &str) -> &'t mut Stored {
    tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap()
}

/// The first number of an f16 tensor.
fn poke(name: &'static str, value: f32) -> impl FnOnce(&mut Vec<Stored>) {
    move |tensors| tensor(tensors, name).3[..2].copy_from_slice(&half::f16::from_f32(value).to_le_bytes())
}

fn ask(model: &Path, more: &[&str]) -> (i32, String, String) {
    let boat = path(BOAT);
    let args = ["ask", &boat, "What is this?", "--max-new-tokens", "4", "--model", model.to_str().unwrap()];
    secateur(&[&args[..], more].concat())
}

fn refuses(model: &Path, parts: &[&str]) {
    let (code, stdout, stderr) = ask(model, &[]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

#[test]
fn numbers_that_are_not_finite_end_every_command() {
    let name = "language_model.model.layers.1.self_attn.q_proj.weight";
    let folder = changed(poke(name, f32::NAN));
    let out = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().to_str().unwrap(), out.path().to_str().unwrap());
    let (boat, data) = (path(BOAT), path("analysis/instructions.jsonl"));
    for args in [
        &["ask", &boat, "What is this?", "--max-new-tokens", "2"][..],
        &["ask", &boat, "What is this?", "--method", "fastervlm,none", "--tokens", "16", "--max-new-tokens", "2"],
        &["trace", "--image", &boat, "--question", "What is this?", "--logits"],
        &["show", &boat, "What is this?", "--method", "fastv", "--tokens", "16", "--out", out],
        &["eval", "demo", "--limit", "2", "--out", out],
        &["sweep", "demo", "--method", "grid", "--budgets", "16", "--limit", "2", "--out", out],
        &["bench", "--method", "grid", "--budgets", "16", "--repeats", "1", "--new-tokens", "2"],
        &["analyze", "attention-shift", &data, "--images", &path("tiny-llava-1.5"), "--limit", "1", "--out", out],
    ] {
        let (code, _, stderr) = secateur(&[args, &["--model", model]].concat());
        assert_eq!(code, 1, "{args:?}: {stderr}");
        for part in ["the language model, layer 1", name, "model.safetensors", "1 of its 25600 numbers are NaN"] {
            assert!(stderr.contains(part), "{args:?}: `{part}` is not in {stderr}");
        }
    }
    let scored = std::fs::read_dir(out).unwrap().any(|run| run.unwrap().path().join("metrics.json").exists());
    assert!(!scored);
}

#[test]
fn numbers_that_overflow_name_the_part_that_does() {
    for (name, part) in [
        ("vision_tower.vision_model.encoder.layers.1.mlp.fc2.weight", "the vision tower, layer 1"),
        ("multi_modal_projector.linear_1.weight", "the projector"),
        ("language_model.lm_head.weight", "the language model"),
    ] {
        let folder = changed(poke(name, f32::INFINITY));
        refuses(folder.path(), &[part, name, "are infinite"]);
    }
    // Finite weights, whose product is not.
    let name = "language_model.model.layers.2.mlp.up_proj.weight";
    let large = |sign: f32| {
        changed(move |tensors| {
            let (_, dtype, _, bytes) = tensor(tensors, name);
            let half = |pair: &[u8]| half::f16::from_le_bytes([pair[0], pair[1]]).to_f32();
            let values: Vec<f32> = bytes.chunks(2).map(|pair| sign * 3e38f32.copysign(half(pair))).collect();
            (*dtype, *bytes) = (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect());
        })
    };
    refuses(large(1.0).path(), &["layer 2", name, "all weights are finite", "overflows in F32"]);
    // Finite in the file, and not in 16 bits.
    let folder = changed(|tensors| {
        let (_, dtype, _, bytes) = tensor(tensors, name);
        let count = bytes.len() / 2;
        (*dtype, *bytes) = (Dtype::F32, (0..count).flat_map(|i| (i as f32 * 1e3).to_le_bytes()).collect());
    });
    let (code, _, stderr) = ask(folder.path(), &["--dtype", "f16"]);
    assert!(code == 1 && stderr.contains(name) && stderr.contains("infinite as F16"), "{stderr}");
}

#[test]
fn folders_that_are_something_else_are_called_that() {
    let with = |files: &[(&str, &str)], keep: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for name in keep {
            std::fs::copy(fixture(LAYOUTS[0]).join(name), folder.path().join(name)).unwrap();
        }
        files.iter().for_each(|(name, text)| std::fs::write(folder.path().join(name), text).unwrap());
        folder
    };
    let small = ["config.json", "tokenizer.model", "tokenizer_config.json"];
    let adapter = ("adapter_config.json", "{\"base_model_name_or_path\": \"lmsys/vicuna-7b-v1.5\"}");
    for (folder, parts) in [
        (with(&[adapter, ("adapter_model.bin", "PK")], &small), &["LoRA adapter", "lmsys/vicuna-7b-v1.5", "merge"][..]),
        (with(&[("mm_projector.bin", "PK")], &small[..1]), &["a projector alone", "second stage"]),
        (with(&[("zero_to_fp32.py", ""), ("latest", "")], &[]), &["DeepSpeed", "zero_to_fp32.py"]),
        (
            with(&[("model-00001-of-00002.safetensors", "x")], &small),
            &["without their index", "model.safetensors.index.json"],
        ),
    ] {
        refuses(folder.path(), parts);
    }
    let folder = tempfile::tempdir().unwrap();
    let gguf = folder.path().join("model.gguf");
    std::fs::write(&gguf, [&b"GGUF\x03\0\0\0"[..], &[0; 16]].concat()).unwrap();
    refuses(&gguf, &["model.gguf", "the setting `general.architecture` is missing"]);
    let (code, _, stderr) = ask(Path::new("no/folder"), &[]);
    assert!(code == 1 && stderr.contains("no/folder"), "{stderr}");
}

#[test]
fn pointers_and_pages_in_place_of_files_are_told() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:abcd\nsize 9\n";
    let page = "<!doctype html><html><body>Access denied</body></html>\n";
    for name in ["pytorch_model-00001-of-00002.bin", "config.json", "tokenizer.model", "pytorch_model.bin.index.json"] {
        for (content, said) in [(pointer, "git lfs pull"), (page, "web page")] {
            let (_folder, model) = damaged_copy();
            std::fs::write(model.join(name), content).unwrap();
            refuses(&model, &[name, said]);
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("pointer.jpg");
    std::fs::write(&image, pointer).unwrap();
    let (code, _, stderr) = secateur(&["ask", image.to_str().unwrap(), "What?", "--model", &path(LAYOUTS[1])]);
    assert!(code == 1 && stderr.contains("pointer.jpg") && stderr.contains("git lfs pull"), "{stderr}");
    let (code, _, stderr) = secateur(&["ask", "https://example.org/a.jpg", "What?", "--model", &path(LAYOUTS[1])]);
    assert!(code == 1 && stderr.contains("an address") && stderr.contains("download it"), "{stderr}");
}

#[test]
fn quantised_weights_are_refused_as_such() {
    let (_folder, model) = damaged_copy();
    let config = model.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let settings = "{\"quantization_config\": {\"quant_method\": \"awq\", \"bits\": 4},";
    std::fs::write(&config, text.replacen('{', settings, 1)).unwrap();
    refuses(&model, &["config.json", "quantised (AWQ, 4 bits)"]);
    // Without a word in the config.
    let folder = changed(|tensors| {
        let (name, ..) = tensor(tensors, "language_model.model.layers.0.mlp.up_proj.weight");
        name.push_str(".absmax");
    });
    refuses(folder.path(), &["quantised (bitsandbytes", "up_proj.weight.absmax"]);
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn names_that_stand_in_a_config_are_reported_with_file_and_field() {
    let (_folder, model) = damaged_copy();
    edit(&model.join("config.json"), "../clip-vit-tiny-patch14-336", "/mnt/train/clip-vit-large");
    refuses(
        &model,
        &["config.json", "mm_vision_tower names `/mnt/train/clip-vit-large`", "openai/clip-vit-large-patch14-336"],
    );
}

#[test]
fn settings_are_named_with_their_value_and_what_is_known() {
    for (from, to, parts) in [
        (
            "\"vision_feature_select_strategy\": \"default\"",
            "\"vision_feature_select_strategy\": \"full\"",
            &["vision_feature_select_strategy is `full`; default is known"][..],
        ),
        ("\"vision_feature_layer\": -2", "\"vision_feature_layer\": [-2, -5]", &["vision_feature_layer is [-2, -5]"]),
        ("\"vision_feature_layer\": -2", "\"vision_feature_layer\": \"last\"", &["`vision_feature_layer`"]),
    ] {
        let folder = changed(|_| {});
        edit(&folder.path().join("config.json"), from, to);
        refuses(folder.path(), parts);
    }
    // A list of one is that one.
    let folder = changed(|_| {});
    edit(&folder.path().join("config.json"), "\"vision_feature_layer\": -2", "\"vision_feature_layer\": [-2]");
    assert_eq!(ask(folder.path(), &[]).0, 0);
    for (from, to, said) in [
        ("\"image_std\": [", "\"image_std\": [0.0, 0.0, 0.0], \"unused\": [", "image_std has 0"),
        ("\"rescale_factor\": 0.00392156862745098", "\"rescale_factor\": 0", "rescale_factor is 0"),
        ("\"do_normalize\": true", "\"do_normalize\": false", "do_normalize is false"),
    ] {
        let folder = changed(|_| {});
        edit(&folder.path().join("preprocessor_config.json"), from, to);
        refuses(folder.path(), &["preprocessor_config.json", said]);
    }
}

#[test]
fn a_folder_that_transformers_5_saved_is_read() {
    let folder = changed(|_| {});
    let expected = ask(folder.path(), &[]);
    let old = folder.path().join("preprocessor_config.json");
    let settings = std::fs::read_to_string(&old).unwrap();
    std::fs::remove_file(&old).unwrap();
    std::fs::write(folder.path().join("processor_config.json"), format!("{{\"image_processor\": {settings}}}"))
        .unwrap();
    let found = ask(folder.path(), &[]);
    assert_eq!((found.0, found.1), (0, expected.1), "{}", found.2);
}

#[test]
fn an_index_of_other_files_and_two_sets_of_weights_get_a_note() {
    let folder = changed(|_| {});
    let index = "model.safetensors.index.json";
    std::fs::copy(fixture(LAYOUTS[1]).join(index), folder.path().join(index)).unwrap();
    let (code, _, stderr) = ask(folder.path(), &[]);
    assert!(code == 0 && stderr.contains("it belongs to other files; model.safetensors is read"), "{stderr}");
    for number in 1..=2 {
        let shard = format!("model-0000{number}-of-00002.safetensors");
        std::fs::copy(fixture(LAYOUTS[1]).join(&shard), folder.path().join(shard)).unwrap();
    }
    let (code, _, stderr) = ask(folder.path(), &[]);
    assert!(code == 0 && stderr.contains("the folder has other files of weights, model.safetensors;"), "{stderr}");
}

/// The checkpoint of LLaVA-NeXT has a tower that was trained; its config may not say so.
#[test]
fn a_tower_that_is_passed_over_gets_a_note_unless_it_is_equal() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llava-v1.6-vicuna-tiny", "clip-vit-tiny-patch14-336"] {
        copy_folder(&fixture(&format!("tiny-llava-1.6/{name}")), &folder.path().join(name));
    }
    let model = folder.path().join("llava-v1.6-vicuna-tiny");
    let (code, _, stderr) = ask(&model, &[]);
    assert!(code == 0 && !stderr.contains("note"), "{stderr}");
    edit(&model.join("config.json"), "\"unfreeze_mm_vision_tower\": true", "\"unfreeze_mm_vision_tower\": false");
    let (code, _, stderr) = ask(&model, &[]);
    assert!(code == 0 && stderr.contains("unfreeze_mm_vision_tower"), "{stderr}");
    // Video-LLaVA's checkpoint has copies of both its towers.
    let frames: PathBuf = fixture("tiny-video-llava/video/frames");
    let video = path("tiny-video-llava/Video-LLaVA-tiny");
    let args = ["ask", frames.to_str().unwrap(), "What?", "--model", &video, "--max-new-tokens", "2"];
    let (code, _, stderr) = secateur(&args);
    assert!(code == 0 && !stderr.contains("note"), "{stderr}");
}

/// Orientation 6, as phones write it: the image lies on its side.
#[test]
fn a_turned_photo_is_turned_for_people_and_not_for_measuring() {
    let turned = path("jpeg/files/exif_6.jpg");
    let folder = tempfile::tempdir().unwrap();
    let model = path(LAYOUTS[1]);
    for args in [
        &["ask", &turned, "What?", "--max-new-tokens", "2"][..],
        &["show", &turned, "What?", "--tokens", "16", "--out", folder.path().to_str().unwrap()],
    ] {
        let (code, _, stderr) = secateur(&[args, &["--model", &model]].concat());
        assert!(code == 0 && stderr.contains("turned upright, as its EXIF block says"), "{stderr}");
    }
    let (code, _, stderr) = secateur(&["trace", "--image", &turned, "--question", "What?", "--model", &model]);
    assert!(code == 0 && stderr.contains("taken as they are stored"), "{stderr}");
    let (stored, upright) = (
        secateur::image::decode(Path::new(&turned)).unwrap(),
        secateur::image::decode_upright(Path::new(&turned)).unwrap(),
    );
    assert!(upright.1 && (upright.0.width, upright.0.height) == (stored.height, stored.width));
    // Clockwise by a quarter.
    let pixel =
        |image: &secateur::image::Rgb, x: usize, y: usize| image.data[3 * (y * image.width + x)..][..3].to_vec();
    assert_eq!(pixel(&upright.0, upright.0.width - 1, 0), pixel(&stored, 0, 0));
    assert_eq!(pixel(&upright.0, 0, 0), pixel(&stored, 0, stored.height - 1));
}
