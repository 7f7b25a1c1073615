//! Every reader of a file that a user or a hub brings: damaged copies end in a sentence that names the file, or are read. None panics.

use std::path::{Path, PathBuf};

use secateur::{
    image::{MAX_PIXELS, decode},
    model::{Beside, open},
    task::{Answer, task},
    text::{ClipTokenizer, Pooling, Tokenizer},
    video::{FrameRule, Video},
};
use secateur_weights::Checkpoint;

use crate::common::{
    CLIP, LAYOUTS, copy_folder, damaged_copy, fixture,
    mutants::{count, mutant},
};

/// Words of libraries, which no reader of an error should meet.
const LIBRARIES: [&str; 8] =
    ["serde", "expected value", "invalid type", "os error", "Utf8Error", "unwrap", "DecodeError", "EOF while"];

/// Reads damaged copies of `seed` at `place` in every way that there is.
fn each_mutant(seed: &Path, place: &Path, read: impl Fn() -> Result<(), String>) {
    let bytes = std::fs::read(seed).unwrap();
    let mut refused = 0;
    for number in 0..count() {
        std::fs::write(place, mutant(&bytes, number)).unwrap();
        if let Err(error) = read() {
            refused += 1;
            assert!(!error.trim().is_empty(), "number {number}");
            let foreign = LIBRARIES.iter().find(|words| error.contains(*words));
            assert_eq!(foreign, None, "number {number} of {}: {error}", seed.display());
        }
    }
    assert!(refused > 0, "{}: nothing was refused", seed.display());
}

fn said<T>(result: Result<T, secateur::Error>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

#[test]
fn images() {
    let folder = tempfile::tempdir().unwrap();
    let made = image::RgbImage::from_fn(40, 30, |x, y| image::Rgb([x as u8 * 6, y as u8 * 8, 99]));
    let mut seeds: Vec<PathBuf> =
        ["jpeg/files/prog_420_q80.jpg", "jpeg/files/restart_row.jpg", "jpeg/files/arith_420.jpg"].map(fixture).into();
    for extension in ["png", "gif", "bmp", "tiff", "webp"] {
        let path = folder.path().join(format!("made.{extension}"));
        made.save(&path).unwrap();
        seeds.push(path);
    }
    let place = folder.path().join("mutant");
    for seed in seeds {
        each_mutant(&seed, &place, || {
            said(decode(&place).inspect(|image| {
                assert_eq!(image.data.len(), 3 * image.width * image.height);
                assert!((image.width * image.height) as u64 <= MAX_PIXELS);
            }))
        });
    }
    let gif = folder.path().join("mutant.gif");
    each_mutant(&folder.path().join("made.gif"), &gif, || said(Video::read(&gif, FrameRule::Count(8))));
}

#[test]
fn tokenizers() {
    let folder = tempfile::tempdir().unwrap();
    let question = "What is in the image? ▁ é </s> 🙂";
    for (seed, name) in [
        ("tiny-llava-1.5/tokenizer-json/tokenizer.json", "tokenizer.json"),
        ("tiny-llava-1.5/llava-v1.5-tiny/tokenizer.model", "tokenizer.model"),
    ] {
        let place = folder.path().join(name);
        each_mutant(&fixture(seed), &place, || {
            said(Tokenizer::read(folder.path(), 1280).and_then(|tokenizer| {
                let ids = tokenizer.encode(question)?;
                assert!(ids.iter().all(|id| *id < 1280));
                tokenizer.decode(&ids);
                Ok(())
            }))
        });
    }
    let place = folder.path().join("tokenizer.json");
    each_mutant(&fixture(CLIP).join("tokenizer.json"), &place, || {
        said(ClipTokenizer::read(folder.path(), 77, 994, Pooling::LargestId).and_then(|tokenizer| {
            let segments = tokenizer.segments(question)?;
            assert!(segments.iter().all(|segment| segment.ids.iter().all(|id| *id < 994)));
            Ok(())
        }))
    });
}

#[test]
fn checkpoints() {
    let (_folder, original) = damaged_copy();
    let open_original = || said(open(original.to_str().unwrap(), Beside::default()));
    for name in ["config.json", "pytorch_model.bin.index.json", "tokenizer_config.json"] {
        let seed = fixture(LAYOUTS[0]).join(name);
        each_mutant(&seed, &original.join(name), || open_original().and_then(|()| weights(&original)));
        std::fs::copy(&seed, original.join(name)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture(LAYOUTS[1]), folder.path());
    for name in ["config.json", "preprocessor_config.json"] {
        let seed = fixture(LAYOUTS[1]).join(name);
        each_mutant(&seed, &folder.path().join(name), || {
            said(open(folder.path().to_str().unwrap(), Beside::default()))
        });
        std::fs::copy(&seed, folder.path().join(name)).unwrap();
    }
}

fn weights(folder: &Path) -> Result<(), String> {
    Checkpoint::open(folder).map(drop).map_err(|error| error.to_string())
}

/// Of files of weights, the part that says what is where: their heads, or small files.
#[test]
fn files_of_weights() {
    let folder = tempfile::tempdir().unwrap();
    let safe = fixture(LAYOUTS[1]).join("model-00002-of-00002.safetensors");
    let small = folder.path().join("small.safetensors");
    crate::common::write_tensors(&small, &[("a", vec![3, 4], vec![1.0; 12]), ("b", vec![2], vec![2.0; 2])]);
    let torch = fixture("tiny-video-llava/LanguageBind_Image/pytorch_model.bin");
    for (seed, name) in [(small, "m.safetensors"), (torch, "m.bin")] {
        let place = folder.path().join(name);
        each_mutant(&seed, &place, || {
            let checkpoint = Checkpoint::open_file(&place).map_err(|error| error.to_string())?;
            checkpoint.tensors.values().for_each(|tensor| drop(tensor.data()));
            Ok(())
        });
    }
    assert!(Checkpoint::open_file(&safe).is_ok());
}

#[test]
fn answers_and_questions() {
    let folder = tempfile::tempdir().unwrap();
    let line =
        |id: u32, text: &str| format!("{{\"question_id\": {id}, \"prompt\": \"Is it?\", \"text\": \"{text}\"}}\n");
    let seed = folder.path().join("seed.jsonl");
    std::fs::write(&seed, (0..20).map(|id| line(id, "Yes, é")).collect::<String>()).unwrap();
    let place = folder.path().join("mutant.jsonl");
    each_mutant(&seed, &place, || said(Answer::read_all(&place)));
    each_mutant(&seed, &place, || said(Answer::read_json_lines(&place)));

    let question = |id: u32| {
        format!("{{\"question_id\": {id}, \"image\": \"a.png\", \"text\": \"Is it?\", \"category\": \"random\"}}\n")
    };
    std::fs::write(&seed, (0..20).map(question).collect::<String>()).unwrap();
    std::fs::create_dir(folder.path().join("val2014")).unwrap();
    let pope = task("pope").unwrap();
    each_mutant(&seed, &folder.path().join("llava_pope_test.jsonl"), || said(pope.samples(folder.path())));

    let table =
        "index\tquestion\tA\tB\tanswer\timage\n0\tWhich?\tone\ttwo\tA\taGVsbG8=\n1000000\tWhich?\ttwo\tone\tB\t0\n";
    std::fs::write(&seed, table).unwrap();
    let mmbench = task("mmbench").unwrap();
    each_mutant(&seed, &folder.path().join("mmbench_dev_20230712.tsv"), || said(mmbench.samples(folder.path())));
}

#[test]
#[cfg(feature = "flex")]
fn gguf_files() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("mutant.gguf");
    let good = |name: &str| fixture("gguf/bad").join(name).display().to_string();
    let load = |decoder: &str, encoder: &str| {
        let checkpoint = open(decoder, Beside { mmproj: Some(encoder), clip: None })?;
        checkpoint.load::<secateur_backends::Flex>(Default::default(), &Default::default())
    };
    let mutant = place.display().to_string();
    for (seed, is_decoder) in [("good-llm.gguf", true), ("good-mmproj.gguf", false)] {
        each_mutant(&fixture("gguf/bad").join(seed), &place, || {
            said(if is_decoder {
                load(&mutant, &good("good-mmproj.gguf"))
            } else {
                load(&good("good-llm.gguf"), &mutant)
            })
        });
    }
    // Most of a file is data, which can be anything: every byte of the header is changed, too.
    let bytes = std::fs::read(fixture("gguf/bad/good-llm.gguf")).unwrap();
    for at in (0..bytes.len().min(8192)).step_by(if count() > 300 { 1 } else { 13 }) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0xff;
        std::fs::write(&place, flipped).unwrap();
        let _ = said(load(&mutant, &good("good-mmproj.gguf")));
    }
}
