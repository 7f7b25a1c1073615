//! Bad input: each a sentence that names the file and what to do, exit code 1, nothing written.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use crate::common::{damaged_copy, fixture};
use assert_cmd::Command;

fn ask(model: &Path, image: &Path) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    command.arg("ask").arg(image).arg("What is this?").arg("--model").arg(model);
    let output = command.args(["--tokens", "16", "--max-new-tokens", "2"]).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn model() -> PathBuf {
    fixture("tiny-llava-1.5/llava-1.5-tiny-hf")
}

fn boat() -> PathBuf {
    fixture("tiny-llava-1.5/images/boat_123x90.png")
}

/// The error that `model` gives with a good image, and `image` with a good model.
fn refuses(model: &Path, image: &Path, parts: &[&str]) {
    let (code, stdout, stderr) = ask(model, image);
    assert_eq!(code, 1, "{stderr}");
    assert_eq!(stdout, "");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "`{part}` is not in: {stderr}");
    }
}

fn edit(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn truncate(path: &Path, share: f64) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..(bytes.len() as f64 * share) as usize]).unwrap();
}

#[test]
fn truncated_shards() {
    for share in [0.0, 0.001, 0.5, 0.999] {
        let (_folder, original) = damaged_copy();
        let shard = original.join("pytorch_model-00002-of-00002.bin");
        truncate(&shard, share);
        refuses(&original, &boat(), &["pytorch_model-00002-of-00002.bin"]);

        let folder = tempfile::tempdir().unwrap();
        crate::common::copy_folder(&model(), folder.path());
        truncate(&folder.path().join("model-00001-of-00002.safetensors"), share);
        refuses(folder.path(), &boat(), &["model-00001-of-00002.safetensors", "damaged or incomplete"]);
    }
}

#[test]
fn missing_files() {
    refuses(Path::new("no/such/folder"), &boat(), &["no/such/folder", "is no folder, and no id"]);
    refuses(&model(), Path::new("no-image.png"), &["no-image.png", "cannot be read"]);
    for name in ["config.json", "preprocessor_config.json", "model-00002-of-00002.safetensors"] {
        let folder = tempfile::tempdir().unwrap();
        crate::common::copy_folder(&model(), folder.path());
        std::fs::remove_file(folder.path().join(name)).unwrap();
        refuses(folder.path(), &boat(), &[name]);
    }
    let (_folder, original) = damaged_copy();
    std::fs::remove_file(original.join("tokenizer.model")).unwrap();
    refuses(&original, &boat(), &["no tokenizer.model and no tokenizer.json"]);
    let (_folder, original) = damaged_copy();
    edit(&original.join("config.json"), "../clip-vit-tiny-patch14-336", "nobody/no-tower");
    refuses(&original, &boat(), &["nobody/no-tower"]);
}

#[test]
fn configs_that_lack_a_field_or_ask_for_another_model() {
    for (from, to, parts) in [
        ("\"hidden_size\"", "\"hidden_sighs\"", &["config.json", "`hidden_size` is missing"][..]),
        ("\"mm_vision_tower\"", "\"mm_tower\"", &["config.json", "`mm_vision_tower` and `mm_video_tower` are missing"]),
        ("\"mm_projector_type\": \"mlp2x_gelu\"", "\"mm_projector_type\": \"linear\"", &["linear", "mlp2x_gelu"]),
        ("\"mm_vision_select_layer\": -2", "\"mm_vision_select_layer\": -9", &["mm_vision_select_layer is -9"]),
        ("\"hidden_size\": 160", "\"hidden_size\": \"wide\"", &["config.json", "wide"]),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 0", &["config.json", "heads"]),
        ("\"architectures\": [", "\"architectures\": ", &["config.json", "`architectures`", "a list is expected"]),
        ("\"llava_llama\"", "\"llava_mistral\"", &["config.json", "`llava_mistral`", "another form"]),
        (
            "\"intermediate_size\": 128",
            "\"intermediate_size\": 0",
            &["config.json", "intermediate_size 0; both are above 0"],
        ),
        (
            "\"hidden_size\"",
            "\"rope_parameters\": {\"rope_type\": \"yarn\", \"factor\": 4.0}, \"hidden_size\"",
            &["config.json", "`yarn`"],
        ),
    ] {
        let (_folder, original) = damaged_copy();
        edit(&original.join("config.json"), from, to);
        refuses(&original, &boat(), parts);
    }
}

#[test]
fn wrong_shapes_and_names_are_listed() {
    for (from, to, parts) in [
        (
            "\"intermediate_size\": 128",
            "\"intermediate_size\": 130",
            &["of the wrong shape", "mlp.down_proj.weight: expected [160, 130], found [160, 128]"][..],
        ),
        (
            "\"num_hidden_layers\": 4",
            "\"num_hidden_layers\": 3",
            &["9 unused", "language_model.layers.3.mlp.down_proj.weight [160, 128]"],
        ),
        (
            "\"num_hidden_layers\": 4",
            "\"num_hidden_layers\": 5",
            &["9 missing", "language_model.layers.4.self_attn.q_proj.weight [160, 160]"],
        ),
    ] {
        let (_folder, original) = damaged_copy();
        edit(&original.join("config.json"), from, to);
        refuses(&original, &boat(), parts);
    }
}

/// A pickle that would run a command if it were executed as Python does.
fn hostile_pickle(marker: &Path) -> Vec<u8> {
    let mut pickle = b"\x80\x02cposix\nsystem\nX".to_vec();
    let command = format!("touch {}", marker.display());
    pickle.extend((command.len() as u32).to_le_bytes());
    pickle.extend(command.as_bytes());
    pickle.extend(b"\x85R.");
    pickle
}

/// A zip archive with one stored entry.
fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let crc = content.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    });
    let (len, name_len) = ((content.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
    let sizes = [&(!crc).to_le_bytes()[..], &len, &len, &name_len, &[0, 0]].concat();
    let local = [b"PK\x03\x04\x0a\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, name.as_bytes(), content].concat();
    let central = [b"PK\x01\x02\x0a\0\x0a\0\0\0\0\0\0\0\0\0".as_slice(), &sizes, &[0; 14], name.as_bytes()].concat();
    let mut end = b"PK\x05\x06\0\0\0\0\x01\0\x01\0".to_vec();
    end.extend((central.len() as u32).to_le_bytes());
    end.extend((local.len() as u32).to_le_bytes());
    end.extend([0, 0]);
    [local, central, end].concat()
}

#[test]
fn a_pickle_that_calls_anything_else_is_refused_and_not_run() {
    let (folder, original) = damaged_copy();
    let marker = folder.path().join("it-ran");
    let shard = original.join("pytorch_model-00001-of-00002.bin");
    std::fs::write(&shard, archive("archive/data.pkl", &hostile_pickle(&marker))).unwrap();
    refuses(&original, &boat(), &["pytorch_model-00001-of-00002.bin", "`posix.system`", "nothing of it was run"]);
    assert!(!marker.exists());
}

#[test]
fn images_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        path
    };
    refuses(&model(), &write("empty.png", b""), &["empty.png", "0 bytes"]);
    refuses(&model(), &write("text.jpg", b"this is a letter\n"), &["text.jpg", "not an image"]);
    let boat = std::fs::read(boat()).unwrap();
    refuses(&model(), &write("cut.png", &boat[..boat.len() / 2]), &["cut.png"]);
    let photo = std::fs::read(fixture("preprocess/images/rgb_520x360.jpg")).unwrap();
    // PIL refuses one that lacks the last byte, too.
    for length in [photo.len() - 1, photo.len() - 100, photo.len() / 2] {
        refuses(&model(), &write("cut.jpg", &photo[..length]), &["cut.jpg", "cut short"]);
    }
    refuses(&model(), folder.path(), &["a folder of frames or a video, and this model sees images only"]);
}

#[test]
fn a_decompression_bomb_is_refused_before_it_is_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bomb.bmp");
    // 60,000 × 60,000 pixels in a header of 54 bytes.
    let mut bmp = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend(60_000i32.to_le_bytes());
    bmp.extend(60_000i32.to_le_bytes());
    bmp.extend([1, 0, 24, 0]);
    bmp.resize(54, 0);
    std::fs::write(&path, bmp).unwrap();
    refuses(&model(), &path, &["bomb.bmp", "60000×60000", "178956970"]);
}

#[test]
fn extreme_images_work() {
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in [(1u32, 1u32), (20_000, 10), (10, 20_000)] {
        let path = folder.path().join(format!("{width}x{height}.png"));
        image::RgbImage::from_pixel(width, height, image::Rgb([90, 140, 30])).save(&path).unwrap();
        let (code, stdout, stderr) = ask(&model(), &path);
        assert_eq!(code, 0, "{stderr}");
        assert!(!stdout.is_empty());
    }
}

#[test]
fn every_format_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let image = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 99]));
    std::fs::copy(fixture("jpeg/files/p_420_q75.jpg"), folder.path().join("image.jpg")).unwrap();
    for extension in ["png", "jpg", "webp", "gif", "bmp", "tiff"] {
        let path = folder.path().join(format!("image.{extension}"));
        if extension != "jpg" {
            image.save(&path).unwrap();
        }
        let (code, _, stderr) = ask(&model(), &path);
        assert_eq!(code, 0, "{extension}: {stderr}");
    }
}
