//! The checkpoint of `wide-llava-1.5`, whose 20 MB of weights are computed: number i of a tensor is `base + step · (ones − 8)`, with the ones of 16 bits of a random sequence.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::{copy_folder, fixture, ids, json};

/// A folder with the whole checkpoint.
pub fn checkpoint() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&fixture("wide-llava-1.5/llava-1.5-wide-hf"), folder.path());
    let spec = json("wide-llava-1.5/llava-1.5-wide-hf/weights.json");
    let (mut head, mut data) = (r#"{"__metadata__":{"format":"pt"}"#.to_owned(), Vec::<u8>::new());
    for tensor in spec["tensors"].as_array().unwrap() {
        let (name, shape) = (tensor["name"].as_str().unwrap(), ids::<usize>(&tensor["shape"]));
        let [base, step] = ["base", "step"].map(|key| tensor[key].as_f64().unwrap());
        let from = data.len();
        numbers(&mut data, spec["seed"].as_u64().unwrap(), name, shape.iter().product(), base, step);
        let shape = serde_json::to_string(&shape).unwrap();
        write!(head, r#","{name}":{{"dtype":"BF16","shape":{shape},"data_offsets":[{from},{}]}}"#, data.len()).unwrap();
    }
    head.push('}');
    head += &" ".repeat(head.len().next_multiple_of(8) - head.len());
    let file = [&(head.len() as u64).to_le_bytes()[..], head.as_bytes(), &data].concat();
    let sum: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(sum, spec["sha256"].as_str().unwrap());
    std::fs::write(folder.path().join("model.safetensors"), file).unwrap();
    folder
}

/// base + step · (ones − 8), of 16 bits each of splitmix64 from the state seed XOR FNV-1a of the name.
fn numbers(to: &mut Vec<u8>, seed: u64, name: &str, count: usize, base: f64, step: f64) {
    let fnv = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let mut state = seed ^ name.bytes().fold(0xcbf2_9ce4_8422_2325, fnv);
    let end = to.len() + 2 * count;
    for _ in 0..count.div_ceil(4) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ z >> 31;
        for part in 0..4 {
            let ones = f64::from((z >> (16 * part) & 0xffff).count_ones());
            to.extend(half::bf16::from_f32((base + step * (ones - 8.0)) as f32).to_le_bytes());
        }
    }
    to.truncate(end);
}
