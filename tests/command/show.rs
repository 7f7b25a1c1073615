//! `secateur show`: images of what is kept lie on the patches that were kept, and maps of relevance are CDPruner's.
//!
//! | what | tolerance |
//! |---|---|
//! | kept patches | whole pixels |
//! | relevance as colours over the image, by the official script's formula | 3 levels |

use std::path::Path;

use crate::common::fixture;
use secateur::{
    image::{Rgb, decode},
    plot::Scale,
};
use serde_json::Value;

const MODEL: &str = "tiny-llava-1.5/llava-v1.5-tiny";

fn secateur(arguments: &[&str]) -> (bool, String, String) {
    let output = assert_cmd::Command::cargo_bin("secateur").unwrap().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn show(model: &str, more: &[&str], out: &Path) -> String {
    let (model, out) = (fixture(model), out.to_str().unwrap());
    let (success, stdout, stderr) =
        secateur(&[&["show", "--model", model.to_str().unwrap(), "--out", out], more].concat());
    assert!(success, "{stderr}");
    stdout
}

fn pixel(image: &Rgb, x: usize, y: usize) -> [u8; 3] {
    std::array::from_fn(|channel| image.data[3 * (y * image.width + x) + channel])
}

#[test]
fn a_kept_patch_is_bright_from_edge_to_edge_and_the_others_are_not() {
    let folder = tempfile::tempdir().unwrap();
    // Noise makes patches differ; no pixel is dark.
    let path = folder.path().join("noise.png");
    image::RgbImage::from_fn(336, 336, |x, y| image::Rgb([200 + ((x * 7 + y * 13 + x * y) % 50) as u8; 3]))
        .save(&path)
        .unwrap();
    let (path, question) = (path.to_str().unwrap(), "Is there a boat in the image?");
    let stdout =
        show(MODEL, &["--method", "fastervlm,fastv", "--tokens", "64", "--heat", path, question], folder.path());
    for name in ["fastervlm.png", "fastervlm-score.png", "fastv.png", "sheet.png"] {
        assert!(stdout.contains(name) && folder.path().join(name).is_file(), "{stdout}");
    }
    assert!(!folder.path().join("fastv-score.png").exists());
    for method in ["fastervlm", "fastv"] {
        let model = fixture(MODEL);
        let trace = ["trace", "--tokens", "64", "--method", method, "--image", path, "--question", question, "--model"];
        let (_, stdout, _) = secateur(&[&trace[..], &[model.to_str().unwrap()]].concat());
        let trace: Value = serde_json::from_str(&stdout).unwrap();
        let kept: Vec<usize> = serde_json::from_value(trace["kept"][0].clone()).unwrap();
        let image = decode(&folder.path().join(format!("{method}.png"))).unwrap();
        assert_eq!((image.width, image.height), (672, 672));
        for patch in 0..576 {
            let (left, top) = (patch % 24 * 28, patch / 24 * 28);
            for (x, y) in [(0, 0), (27, 0), (0, 27), (27, 27), (14, 14)] {
                let bright = pixel(&image, left + x, top + y)[0] > 150;
                assert_eq!(bright, kept.contains(&patch), "{method}: patch {patch} at {x}, {y}");
            }
        }
    }
}

#[test]
fn padding_is_cut_off_and_tiles_and_frames_have_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let size = |name: &str| {
        let image = decode(&folder.path().join(name)).unwrap();
        (image.width, image.height)
    };
    let boat = fixture("tiny-llava-1.5/images/boat_123x90.png");
    show(MODEL, &["--tokens", "64", boat.to_str().unwrap(), "What is this?"], folder.path());
    // Some patches of the padding are kept, and are seen.
    assert_eq!(size("fastervlm.png"), (672, 672));
    // The whole image, then two tiles across: with gaps of 12 between.
    let images = fixture("tiny-llava-1.6/images");
    let wide = std::fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path()).find(|path| {
        let image = decode(path).unwrap();
        image.width > 2 * image.height
    });
    let wide = wide.expect("a wide image is among them");
    let next = "tiny-llava-1.6/llava-v1.6-vicuna-tiny";
    show(next, &["--tokens", "64", wide.to_str().unwrap(), "What is this?"], folder.path());
    let (width, height) = size("fastervlm.png");
    assert!(width >= 336 + 12 + 2 * 336 + 12 && height >= 336, "{width}×{height}");
    let frames = fixture("tiny-video-llava/video/frames");
    show(
        "tiny-video-llava/Video-LLaVA-tiny",
        &["--tokens", "26", frames.to_str().unwrap(), "What moves?"],
        folder.path(),
    );
    assert_eq!(size("fastervlm.png"), (8 * 224 + 7 * 12, 224));
}

#[test]
fn relevance_is_drawn_as_by_the_official_script() {
    let folder = tempfile::tempdir().unwrap();
    let boat = fixture("tiny-llava-1.5/images/boat_123x90.png");
    show(MODEL, &["--relevance", "boat,lake", boat.to_str().unwrap()], folder.path());
    let bytes = std::fs::read(fixture("analysis/relevance.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let levels = |name: &str| -> Vec<u8> {
        let numbers = golden.tensor(name).unwrap().data().as_chunks::<8>().0.to_vec();
        numbers.into_iter().map(|bytes| i64::from_le_bytes(bytes) as u8).collect()
    };
    assert_eq!(levels("jet").len(), 3 * 256);
    for (i, expected) in levels("jet").chunks(3).enumerate() {
        assert_eq!(Scale::Jet.colour(i as f32 / 255.0), expected, "jet {i}");
    }
    for word in ["boat", "lake"] {
        let image = decode(&folder.path().join(format!("relevance-{word}.png"))).unwrap();
        assert_eq!((image.width, image.height), (336, 336));
        let mut worst = 0;
        let expected = levels(&format!("{word}.overlay_sub"));
        assert_eq!(expected.len(), 3 * 24 * 24);
        for (patch, expected) in expected.chunks(3).enumerate() {
            let found = pixel(&image, 14 * (patch % 24) + 7, 14 * (patch / 24) + 7);
            // A relevance between two colours of the table may go to either.
            worst = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).fold(worst, u8::max);
        }
        assert!(worst <= 3, "{word}: {worst} levels");
    }
}

#[test]
fn what_cannot_be_shown_is_said() {
    let boat = fixture("tiny-llava-1.5/images/boat_123x90.png");
    let model = fixture(MODEL);
    let (success, _, stderr) = secateur(&["show", "--model", model.to_str().unwrap(), boat.to_str().unwrap(), "What?"]);
    assert!(!success && stderr.contains("--tokens N draws what methods keep"), "{stderr}");
    let (frames, video) = (fixture("tiny-video-llava/video/frames"), fixture("tiny-video-llava/Video-LLaVA-tiny"));
    let arguments = ["show", "--relevance", "boat", "--model", video.to_str().unwrap(), frames.to_str().unwrap()];
    let (success, _, stderr) = secateur(&arguments);
    assert!(!success && stderr.contains("LanguageBind's is another network"), "{stderr}");
}
