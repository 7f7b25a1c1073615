//! Filling a module: all or nothing.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::{Module, Param, ParamId},
    tensor::{DType, Tensor, backend::Backend},
};
use burn_flex::Flex;
use secateur_weights::{Checkpoint, Dtypes, Rename, StoredTensor, WeightsError, load};

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Param<Tensor<B, 1>>,
}

fn layer() -> Layer<Flex> {
    let device = Default::default();
    let zeros = |shape: [usize; 2]| {
        Param::uninitialized(ParamId::new(), move |d, _| Tensor::zeros(shape, d), device, false, shape.into())
    };
    let bias = Param::uninitialized(ParamId::new(), |d, _| Tensor::zeros([3], d), device, false, [3].into());
    Layer { weight: zeros([3, 2]), bias }
}

/// A safetensors file of the named tensors; every byte is 0x3c, which is 1.0586 in f16.
fn file(tensors: &[(&str, safetensors::Dtype, Vec<usize>)]) -> (tempfile::TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let bytes = vec![0x3c; 1024];
    let views = tensors.iter().map(|(name, dtype, shape)| {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        (*name, safetensors::tensor::TensorView::new(*dtype, shape.clone(), &bytes[..len]).unwrap())
    });
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    (folder, checkpoint)
}

fn fill(tensors: BTreeMap<String, StoredTensor>, weights: Option<DType>) -> Result<Layer<Flex>, WeightsError> {
    load::<Flex, _>(
        layer(),
        tensors,
        Dtypes { weights, vectors: DType::F32, unpacked: DType::F32 },
        |dtype| dtype,
        &mut |_, _, _| false,
        Path::new("here"),
    )
}

use safetensors::Dtype::{F16, I8};

#[test]
fn matrices_keep_their_type_and_vectors_take_the_activations() {
    let (_folder, checkpoint) = file(&[("weight", F16, vec![3, 2]), ("bias", F16, vec![3])]);
    let filled = fill(checkpoint.tensors.clone(), None).unwrap();
    assert_eq!((filled.weight.val().dtype(), filled.bias.val().dtype()), (DType::F16, DType::F32));
    let values: Vec<f32> = filled.bias.val().into_data().into_vec().unwrap();
    assert!(values.iter().all(|value| (value - 1.0586).abs() < 1e-3), "{values:?}");
    let wide = fill(checkpoint.tensors, Some(DType::F32)).unwrap();
    assert_eq!(wide.weight.val().dtype(), DType::F32);
}

#[test]
fn what_does_not_fit_is_listed() {
    for (tensors, part) in [
        (vec![("weight", F16, vec![3, 2])], "1 missing:\n    bias [3]"),
        (vec![("weight", F16, vec![2, 3]), ("bias", F16, vec![3])], "weight: expected [3, 2], found [2, 3]"),
        (
            vec![("weight", F16, vec![3, 2]), ("bias", F16, vec![3]), ("scale", F16, vec![1])],
            "1 unused:\n    scale [1]",
        ),
        (vec![("weight", I8, vec![3, 2]), ("bias", F16, vec![3])], "not of a floating-point type:\n    weight"),
    ] {
        let (_folder, checkpoint) = file(&tensors);
        let error = fill(checkpoint.tensors, None).expect_err("it does not fit").to_string();
        assert!(error.starts_with("here: ") && error.contains(part), "{error}");
    }
}

#[test]
fn two_names_for_one_place_are_refused() {
    let (_folder, checkpoint) = file(&[("a.weight", F16, vec![1]), ("b.weight", F16, vec![1])]);
    let rename = Rename { prefixes: &[("a.", "x."), ("b.", "x.")], parts: &[], ignored: &[] };
    let error = rename.apply(checkpoint).err().expect("they collide").to_string();
    assert!(error.contains("`b.weight`") && error.contains("`x.weight`"), "{error}");
}

/// A header of 19,280 bytes makes a file start with `PK`, as a zip archive does.
#[test]
fn a_long_header_is_not_taken_for_an_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let content = [&19_280u64.to_le_bytes(), format!("{header:19280}").as_bytes(), &1f32.to_le_bytes()].concat();
    assert!(content.starts_with(b"PK"));
    std::fs::write(&path, content).unwrap();
    assert_eq!(Checkpoint::open_file(&path).unwrap().tensors["w"].data().to_vec::<f32>().unwrap(), [1.]);
}

#[test]
fn shards_outside_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for shard in ["../model.safetensors", "/model.safetensors"] {
        let index = format!(r#"{{"weight_map": {{"w": "{shard}"}}}}"#);
        std::fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let error = Checkpoint::open(folder.path()).err().expect("it is outside").to_string();
        assert!(error.contains("index.json") && error.contains(shard) && error.contains("outside"), "{error}");
    }
}
