//! CLIP's tokenizer and text side as CDPruner uses them.
//!
//! | stage | tolerance |
//! |---|---|
//! | ids, segments, pooled position | exact |
//! | hidden states of the text tower, text embeddings | 1e-4 |
//! | patches of a black image in the joint space | 1e-4 |

use crate::common::{
    CLIP, LAYOUTS, fixture,
    golden::{asked, compares_all, dtype, is_brief, load, values},
    json, on_every_backend, tensors, worst,
};
use secateur::{
    image::Rgb,
    pruner::Needs,
    text::{ClipTokenizer, Pooling},
};
use secateur_backends::{Job, VlmBackend};

fn tokenizer() -> ClipTokenizer {
    ClipTokenizer::read(&fixture(CLIP), 77, 994, Pooling::LargestId).unwrap()
}

#[test]
fn questions_become_the_official_segments() {
    let expected = json("clip-text/expected.json");
    let cases = expected["cases"].as_object().unwrap();
    for (name, case) in cases {
        let text = case["text"].as_str().unwrap();
        assert_eq!(tokenizer().encode(text).unwrap(), crate::common::ids::<u32>(&case["input_ids"]), "{name}");
        let segments = tokenizer().segments(text).unwrap();
        let ids: Vec<Vec<u32>> = segments.iter().map(|segment| segment.ids.clone()).collect();
        assert_eq!(ids, crate::common::ids::<Vec<u32>>(&case["segments"]), "{name}");
        let pools: Vec<usize> = segments.iter().map(|segment| segment.pool).collect();
        assert_eq!(pools, crate::common::ids::<usize>(&case["pool_position_per_segment"]), "{name}");
    }
    assert!(cases.len() >= 27, "only {} texts were compared", cases.len());
}

#[derive(Clone)]
struct Embeds;

impl Job for Embeds {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        let golden = tensors("clip-text/expected.safetensors");
        // The text side of the original layout is in its tower; llava-hf takes it from there too.
        let layouts = if compares_all::<B>(&device) { &LAYOUTS[..] } else { &LAYOUTS[..1] };
        for layout in layouts {
            let model = load::<B>(layout, Some(CLIP), dtype::<B>(), &device);
            let black = Rgb { width: 336, height: 336, data: vec![0; 3 * 336 * 336] };
            let (_, mut views) = model.vlm().squeezed(&black);
            views.pixels.fill(0.0);
            let features = model.encode(views, Needs::default()).unwrap().features;
            let mut images = 0;
            for (i, (name, case)) in json("clip-text/expected.json")["cases"].as_object().unwrap().iter().enumerate() {
                let rows = golden.get(&format!("{name}.zero_image.image_embeds_rows"));
                // Every length of a text is a shape of its own, for which a GPU compiles its kernels.
                if is_brief::<B>(&device) && rows.is_none() && i % 6 > 0 {
                    continue;
                }
                let (image, text) = model.joint(features.clone(), &asked(case["text"].as_str().unwrap())).unwrap();
                let found = worst(&values(text), &golden[&format!("{name}.text_embeds")].values);
                assert!(found < 1e-4, "{layout} {name}: {found}");
                if let Some(rows) = rows {
                    let every: Vec<f32> = (0..6).flat_map(|i| values(image.clone().narrow(1, 96 * i, 1))).collect();
                    let found = worst(&every, &rows.values);
                    assert!(found < 1e-4, "{layout} {name}, image: {found}");
                    images += 1;
                }
            }
            assert_eq!(images, 1, "{layout}");
        }
    }
}

#[test]
fn both_sides_reach_the_official_joint_space() {
    on_every_backend(&Embeds);
}
