//! GGUF files against gguf-py: every layout of blocks to the last bit, and files in parts.

use std::path::{Path, PathBuf};

use secateur_weights::{Checkpoint, Gguf, GgufTensor, GgufType, Setting, write_gguf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/gguf").join(name)
}

#[test]
fn values_are_those_of_ggml_to_the_last_bit() {
    let mut compared = 0;
    for kind in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"] {
        let file = Gguf::open(&fixture(&format!("blocks/{kind}.gguf"))).unwrap();
        let expected = Checkpoint::open_file(&fixture(&format!("blocks/{kind}.safetensors"))).unwrap();
        for (name, tensor) in &file.tensors {
            let name = name.strip_suffix(".weight").unwrap();
            let wanted: Vec<f32> = expected.tensors[&format!("{name}.dequantized")].data().into_vec().unwrap();
            let found: Vec<f32> = tensor.data().convert::<f32>().into_vec().unwrap();
            assert_eq!(found.len(), wanted.len(), "{kind} {name}");
            let differ = found.iter().zip(&wanted).position(|(a, b)| a.to_bits() != b.to_bits() && a != b);
            assert_eq!(differ.map(|i| (i, found[i], wanted[i])), None, "{kind} {name}");
            compared += 1;
        }
    }
    assert!(compared >= 60, "{compared}");
}

/// A part of a split file with one tensor.
fn part(folder: &Path, number: u32, count: u32, tensor: &str) -> PathBuf {
    let path = folder.join(format!("model-{:05}-of-{count:05}.gguf", number + 1));
    let mut settings =
        vec![("split.no".to_owned(), Setting::Count(number)), ("split.count".to_owned(), Setting::Count(count))];
    if number == 0 {
        settings.push(("general.architecture".to_owned(), Setting::Text("llama".to_owned())));
    }
    let tensors = [GgufTensor { name: tensor.to_owned(), shape: vec![2], kind: GgufType::F32 }];
    write_gguf(&path, &settings, &tensors, |_| [0.5f32, 2.0].iter().flat_map(|x| x.to_le_bytes()).collect()).unwrap();
    path
}

#[test]
fn the_parts_of_a_split_file_are_joined() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: &Path| Gguf::open(path).err().map(|error| error.to_string()).unwrap_or_default();
    let first = part(folder.path(), 0, 3, "a");
    let second = part(folder.path(), 1, 3, "b");
    assert!(said(&first).contains("model-00003-of-00003.gguf: not found"), "{}", said(&first));
    assert!(said(&second).contains("part 2 of 3"), "{}", said(&second));
    part(folder.path(), 2, 3, "c");
    let whole = Gguf::open(&first).unwrap();
    assert_eq!(whole.tensors.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(whole.files.len(), 3);
    part(folder.path(), 2, 3, "a");
    assert!(said(&first).contains("tensor `a` is in two parts"), "{}", said(&first));
    let renamed = folder.path().join("renamed.gguf");
    std::fs::rename(&first, &renamed).unwrap();
    assert!(said(&renamed).contains("does not end in -00001-of-00003.gguf"), "{}", said(&renamed));
}
