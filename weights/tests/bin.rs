//! PyTorch files that are not as they must be. Each ends in an error, never in a panic, a wrong weight or a call.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use secateur_weights::{Checkpoint, WeightsError};

/// A `.bin` with this pickle and one storage `0` of `storage` bytes.
fn bin(folder: &Path, pickle: &[u8], storage: usize) -> PathBuf {
    bin_of(folder, pickle, &vec![7; storage])
}

/// A `.bin` with this pickle and this storage `0`.
fn bin_of(folder: &Path, pickle: &[u8], storage: &[u8]) -> PathBuf {
    let path = folder.join("pytorch_model.bin");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in [("archive/data.pkl", pickle), ("archive/data/0", storage)] {
        zip.start_file(name, stored).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap();
    path
}

/// The pickle of `{"w": tensor}`: an f32 storage of `len` numbers, seen through a shape, strides and an offset.
fn state_dict(len: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |items: &[u8]| {
        let items: Vec<u8> = items.iter().flat_map(|&item| [b'K', item]).collect();
        [b"(", &items[..], b"t"].concat()
    };
    [
        b"\x80\x02}X\x01\0\0\0wctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
            .as_slice(),
        b"X\x01\0\0\x000X\x03\0\0\0cpuK",
        &[len],
        b"tQK",
        &[offset],
        &tuple(shape),
        &tuple(strides),
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

fn open(pickle: &[u8], storage: usize) -> Result<Checkpoint, WeightsError> {
    let folder = tempfile::tempdir().unwrap();
    Checkpoint::open_file(&bin(folder.path(), pickle, storage))
}

fn reason(pickle: &[u8], storage: usize) -> String {
    open(pickle, storage).err().expect("this file is not sound").to_string()
}

#[test]
fn a_sound_file_is_read() {
    let file = open(&state_dict(6, 2, &[2, 2], &[2, 1]), 24).unwrap();
    let tensor = &file.tensors["w"];
    assert_eq!(tensor.shape, [2, 2]);
    assert_eq!(tensor.data().num_elements(), 4);
}

/// As `visual_projection.weight` of the published CLIP towers is.
#[test]
fn a_tensor_that_is_stored_transposed_is_read_in_its_own_order() {
    let folder = tempfile::tempdir().unwrap();
    let numbers: Vec<u8> = (0..8u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    let open =
        |pickle: &[u8]| Checkpoint::open_file(&bin_of(folder.path(), pickle, &numbers)).unwrap().tensors["w"].data();
    let transposed = open(&state_dict(8, 1, &[2, 3], &[1, 2]));
    assert_eq!(transposed.shape, [2, 3].into());
    assert_eq!(transposed.to_vec::<f32>().unwrap(), [1., 3., 5., 2., 4., 6.]);
    assert_eq!(open(&state_dict(8, 0, &[2, 2], &[4, 1])).to_vec::<f32>().unwrap(), [0., 1., 4., 5.]);
    assert_eq!(open(&state_dict(8, 3, &[1, 2, 2], &[0, 1, 2])).to_vec::<f32>().unwrap(), [3., 5., 4., 6.]);
    for (shape, strides) in [([0, 2], [1, 5]), ([2, 0], [1, 1]), ([255, 0], [0, 1])] {
        assert_eq!(open(&state_dict(8, 3, &shape, &strides)).num_elements(), 0);
    }
}

#[test]
fn one_tensor_may_have_two_names() {
    // `{"w": t, "v": t}`: the tensor is remembered and recalled.
    let mut pickle = state_dict(4, 0, &[2, 2], &[2, 1]);
    pickle.truncate(pickle.len() - 2);
    pickle.extend_from_slice(b"q\x07sX\x01\0\0\0vh\x07s.");
    let file = open(&pickle, 16).unwrap();
    assert_eq!(file.tensors["v"].data(), file.tensors["w"].data());
}

#[test]
fn views_that_do_not_fit_their_storage_are_refused() {
    assert!(reason(&state_dict(4, 0, &[2, 2], &[1, 3]), 16).contains("ends at element 5, but its storage has 4"));
    assert!(reason(&state_dict(4, 0, &[255, 255], &[0, 0]), 16).contains("shows 1 elements as 65025"));
    assert!(reason(&state_dict(4, 0, &[4], &[]), 16).contains("strides []"));
    assert!(reason(&state_dict(4, 1, &[2, 2], &[2, 1]), 16).contains("ends at element 5, but its storage has 4"));
    assert!(reason(&state_dict(4, 0, &[2, 2], &[2, 1]), 12).contains("its storage has 3"));
    assert!(reason(&state_dict(4, 0, &[255, 255], &[255, 1]), 16).contains("its storage has 4"));
}

#[test]
fn foreign_calls_are_named_and_not_made() {
    for call in [&b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R."[..], b"\x80\x04\x8c\x02os\x8c\x06system\x93."] {
        let reason = reason(call, 4);
        assert!(reason.contains("`os.system`") && reason.contains("nothing of it was run"), "{reason}");
    }
    assert!(reason(b"\x80\x02}\x81.", 4).contains("instruction 0x81"));
}

#[test]
fn bombs_are_refused() {
    // A million tuples in tuples overflow the stack when they are dropped; 40 doublings fill the memory.
    let nested = [b"\x80\x02N".as_slice(), &[0x85; 1_000_000], b"."].concat();
    assert!(reason(&nested, 4).contains("nests containers"));
    let lists = [b"\x80\x02".as_slice(), &[b']'; 1_000_000], &[b'a'; 999_999], b"."].concat();
    assert!(reason(&lists, 4).contains("nests containers"));
    let keys = [b"\x80\x02".as_slice(), &[b'}'; 1_000_000], &b"Ns".repeat(999_999), b"."].concat();
    assert!(reason(&keys, 4).contains("keys that are no text"));
    let doubling = [b"\x80\x02K\x01\x85q\0".as_slice(), &b"h\0h\0\x86q\0".repeat(40), b"."].concat();
    assert!(reason(&doubling, 4).contains("refers back"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever bytes are changed, the file is read or refused.
    #[test]
    fn damage_never_panics(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut pickle = state_dict(6, 2, &[2, 2], &[2, 1]);
        for (at, value) in flips {
            let at = at.index(pickle.len());
            pickle[at] = value;
        }
        if let Ok(file) = open(&pickle, 24) {
            for tensor in file.tensors.values() {
                let data = tensor.data();
                prop_assert_eq!(data.num_elements(), tensor.shape.iter().product::<usize>());
            }
        }
    }
}
