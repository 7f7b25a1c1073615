//! What the golden tests share: the fixtures, and how they are read.

#![allow(dead_code, unreachable_pub, unused_imports, reason = "every test binary uses a part of it")]

pub mod cues;
#[path = "../../backends/tests/operations/every_backend.rs"]
mod every_backend;
pub mod golden;
pub mod hub;
pub mod judge;
pub mod mutants;
pub mod wide;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use every_backend::on_every_backend;
use serde_json::Value;

/// The backend of tests for which one is enough.
#[cfg(feature = "flex")]
pub type Cpu = secateur_backends::Flex;
/// The backend of tests for which one is enough.
#[cfg(not(feature = "flex"))]
pub type Cpu = secateur_backends::NdArray;

/// A path below `tests/fixtures`, of the checkout that the tests run in: they may have been built elsewhere.
pub fn fixture(name: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&root).join("tests/fixtures").join(name)
}

pub fn json(name: &str) -> Value {
    let path = fixture(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// A tensor of a golden file.
pub struct Golden {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Every f32 tensor of a safetensors fixture.
pub fn tensors(name: &str) -> BTreeMap<String, Golden> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32)
        .map(|(name, view)| {
            let values = view.data().as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (name.to_owned(), Golden { shape: view.shape().to_vec(), values })
        })
        .collect()
}

/// Writes f32 tensors as a safetensors file.
pub fn write_tensors(path: &Path, tensors: &[(&str, Vec<usize>, Vec<f32>)]) {
    let bytes: Vec<(&str, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            (*name, shape.clone(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = bytes.iter().map(|(name, shape, data)| {
        let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap();
        (*name, view)
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

pub fn indices(value: &Value) -> Vec<Vec<usize>> {
    serde_json::from_value(value.clone()).unwrap()
}

pub fn ids<T: for<'de> serde::Deserialize<'de>>(value: &Value) -> Vec<T> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The largest difference, after checking that there is something to compare.
pub fn worst(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(!found.is_empty());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d > worst || d.is_nan() { d } else { worst })
}

/// The tower of the tiny LLaVA-1.5, which has CLIP's text side.
pub const CLIP: &str = "tiny-llava-1.5/clip-vit-tiny-patch14-336";

/// The model folders of the tiny LLaVA-1.5: the same weights in both layouts.
pub const LAYOUTS: [&str; 2] = ["tiny-llava-1.5/llava-v1.5-tiny", "tiny-llava-1.5/llava-1.5-tiny-hf"];

/// Copies a folder of plain files.
pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A copy of the original-layout checkpoint and its tower that a test may damage.
pub fn damaged_copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["llava-v1.5-tiny", "clip-vit-tiny-patch14-336"] {
        copy_folder(&fixture(&format!("tiny-llava-1.5/{name}")), &folder.path().join(name));
    }
    let model = folder.path().join("llava-v1.5-tiny");
    (folder, model)
}
