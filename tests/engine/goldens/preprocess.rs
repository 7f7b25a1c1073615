//! Pixels against Pillow and `CLIPImageProcessor`.
//!
//! Tolerance: none. Pillow's arithmetic is repeated bit by bit, and JPEGs are decoded by the library that Pillow has.

use crate::common::{fixture, json};
use proptest::prelude::*;
use secateur::image::{Aspect, ClipProcessor, GridRule, Rgb, Tiles, crops, decode};

fn processor() -> ClipProcessor {
    ClipProcessor::read(&fixture("tiny-llava-1.5/clip-vit-tiny-patch14-336")).unwrap()
}

fn worst(found: &Rgb, expected: &Rgb) -> u8 {
    assert_eq!((found.width, found.height, found.data.len()), (expected.width, expected.height, expected.data.len()));
    found.data.iter().zip(&expected.data).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

/// The official code reads a 3×3 image as channels first and scrambles it, and cannot read 1×1; ours reads both.
const DIFFERS: [&str; 2] = ["rgb_3x3.png", "rgb_1x1.png"];

#[test]
fn decoding_matches_pil() {
    let mut compared = 0;
    for name in json("preprocess/expected/expected.json")["images"].as_object().unwrap().keys() {
        let golden = fixture("preprocess/expected").join(format!("{}.decoded_rgb.png", name.replace('.', "_")));
        if golden.is_file() {
            let found = decode(&fixture("preprocess/images").join(name)).unwrap();
            let difference = worst(&found, &decode(&golden).unwrap());
            assert_eq!(difference, 0, "{name}: {difference} levels");
            compared += 1;
        }
    }
    assert!(compared >= 9, "only {compared} images were compared");
}

/// Width and height, as in LLaVA-NeXT's configs.
const RESOLUTIONS: [(usize, usize); 5] = [(336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008)];

#[test]
fn every_repository_chooses_its_own_resolution() {
    let mut compared = 0;
    for row in json("preprocess/expected/expected.json")["resolution_table"].as_array().unwrap() {
        let size: (usize, usize) = serde_json::from_value(row["size_wh"].clone()).unwrap();
        for (repository, rule) in [
            ("LLaVA", GridRule::Llava),
            ("FasterVLM", GridRule::Filled),
            ("DATP", GridRule::Filled),
            ("VisPruner", GridRule::TwoByTwo),
            ("CDPruner", GridRule::TwoByTwo),
        ] {
            let Tiles { columns, rows } = rule.tiles(size, &RESOLUTIONS, 336);
            let wanted: (usize, usize) = serde_json::from_value(row[repository].clone()).unwrap();
            assert_eq!((columns * 336, rows * 336), wanted, "{repository} {size:?}");
            compared += 1;
        }
    }
    assert!(compared >= 100, "only {compared} choices were compared");
}

#[test]
fn crops_match_pillow_exactly() {
    for name in ["wide_300x100", "tiny_12x9", "huge_1400x1000"] {
        let image = decode(&fixture("tiny-llava-1.6/images").join(format!("{name}.png"))).unwrap();
        let golden = decode(&fixture("tiny-llava-1.6/expected/preprocessed").join(format!("{name}.png"))).unwrap();
        let tiles = GridRule::Llava.tiles((image.width, image.height), &RESOLUTIONS, 336);
        let found = crops(&image, &processor(), tiles);
        assert_eq!(found.len(), tiles.crops());
        // The golden has the crops one above the other.
        let data = found.into_iter().flat_map(|crop| crop.data).collect();
        assert_eq!(worst(&Rgb { width: 336, height: 336 * tiles.crops(), data }, &golden), 0, "{name}");
    }
}

#[test]
fn resizing_matches_pillow_exactly() {
    let mut compared = 0;
    for name in json("preprocess/expected/expected.json")["images"].as_object().unwrap().keys() {
        for (suffix, aspect) in [("pad336", Aspect::Pad), ("crop336", Aspect::Crop)] {
            let golden = fixture("preprocess/expected").join(format!("{}.{suffix}.png", name.replace('.', "_")));
            if !golden.is_file() || DIFFERS.contains(&name.as_str()) {
                continue;
            }
            // Where PIL's own decoding is at hand, decoders play no part.
            let decoded = fixture("preprocess/expected").join(format!("{}.decoded_rgb.png", name.replace('.', "_")));
            let source = if decoded.is_file() { decoded } else { fixture("preprocess/images").join(name) };
            let found = processor().square(&decode(&source).unwrap(), aspect);
            assert_eq!(worst(&found, &decode(&golden).unwrap()), 0, "{name} {suffix}");
            compared += 1;
        }
    }
    assert!(compared >= 12, "only {compared} images were compared");
}

#[test]
fn pixel_means_match_for_every_image() {
    let mut compared = 0;
    for (name, golden) in json("preprocess/expected/expected.json")["images"].as_object().unwrap() {
        if DIFFERS.contains(&name.as_str()) {
            continue;
        }
        let image = decode(&fixture("preprocess/images").join(name)).unwrap();
        for (key, aspect) in [("pad", Aspect::Pad), ("no_pad_center_crop", Aspect::Crop)] {
            let Some(mean) = golden[key]["mean"].as_f64() else { continue };
            // An image of height 3 is channels first to the official code when it is not padded.
            if image.height == 3 && aspect == Aspect::Crop {
                continue;
            }
            let pixels = processor().pixels(&image, aspect);
            let found = pixels.iter().map(|&p| f64::from(p)).sum::<f64>() / pixels.len() as f64;
            assert!((found - mean).abs() < 1e-5, "{name} {key}: mean {found}, expected {mean}");
            compared += 1;
        }
    }
    assert!(compared >= 30, "only {compared} means were compared");
}

#[test]
fn extreme_shapes_work() {
    for (width, height) in [(1, 1), (3, 3), (20_000, 10), (10, 20_000), (1, 65_535)] {
        let image = Rgb { width, height, data: vec![200; 3 * width * height] };
        for aspect in [Aspect::Pad, Aspect::Crop] {
            let square = processor().square(&image, aspect);
            assert_eq!((square.width, square.height), (336, 336), "{width}×{height} {aspect:?}");
            assert!(square.data.contains(&200) || aspect == Aspect::Pad, "{width}×{height} {aspect:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// An image of one colour keeps it, whatever its size.
    #[test]
    fn a_plain_image_stays_plain(width in 1usize..300, height in 1usize..300, colour: [u8; 3]) {
        let image = Rgb { width, height, data: colour.repeat(width * height) };
        let square = processor().square(&image, Aspect::Crop);
        prop_assert_eq!(square.data.len(), 3 * 336 * 336);
        prop_assert!(square.data.chunks(3).all(|pixel| pixel == colour));
        prop_assert_eq!(processor().pixels(&image, Aspect::Pad).len(), 3 * 336 * 336);
    }
}
