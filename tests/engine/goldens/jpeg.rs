//! JPEG files of many encoders against Pillow 10.2 (libjpeg-turbo 3.0.1): every pixel equal, and the same files refused.

use secateur::image::{Aspect, ClipProcessor, Rgb, decode};
use sha2::{Digest, Sha256};

use crate::common::{fixture, json};

fn sha256(image: &Rgb) -> String {
    Sha256::digest(&image.data).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_pixel_is_pillows() {
    let expected = json("jpeg/expected.json");
    let processor = ClipProcessor::read(&fixture("tiny-llava-1.5/clip-vit-tiny-patch14-336")).unwrap();
    let files = expected["files"].as_object().unwrap();
    assert_eq!(files.len(), 35);
    for (name, file) in files {
        let image = decode(&fixture("jpeg/files").join(format!("{name}.jpg"))).unwrap();
        let size: [usize; 2] = serde_json::from_value(file["size"].clone()).unwrap();
        assert_eq!([image.width, image.height], size, "{name}");
        assert_eq!(sha256(&image), file["rgb_sha256"].as_str().unwrap(), "{name}: {}", file["how"]);
        // Padded to a square and resized, as LLaVA-1.5's tower reads it.
        if let Some(padded) = file["pad336_sha256"].as_str() {
            assert_eq!(sha256(&processor.square(&image, Aspect::Pad)), padded, "{name} padded");
        }
    }
}

#[test]
fn what_pillow_refuses_is_refused() {
    let read = |name: &str| decode(&fixture("jpeg/broken").join(format!("{name}.jpg")));
    for name in ["fill_bytes_before_markers", "trailing_bytes", "two_pictures"] {
        assert!(read(name).is_ok(), "{name}");
    }
    for (name, said) in
        [("no_end_mark", "cut short"), ("cut_in_half", "cut short"), ("garbage_before_marker", "not an image")]
    {
        let error = read(name).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(said), "{error}");
    }
}
