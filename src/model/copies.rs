//! Towers that lie in a checkpoint beside the one that is read.

use std::{collections::BTreeMap, path::Path};

use rayon::prelude::*;
use secateur_weights::{Checkpoint, StoredTensor};

use super::LlamaConfig;

/// A note on a tower in the checkpoint, `copy`, in whose place the tower `read` from the folder `tower` is used; none if both are equal. Tensors are compared in the type of the copy, which training may have saved in 16 bits.
pub(super) fn note(
    copy: &BTreeMap<String, StoredTensor>,
    read: &BTreeMap<String, StoredTensor>,
    config: &Path,
    tower: &Path,
) -> Option<String> {
    let differs = |(path, tensor): (&String, &StoredTensor)| match read.get(path) {
        // A norm that no LLaVA reads.
        None => !path.contains(".post_layernorm."),
        Some(other) => !equal(tensor, other),
    };
    let different = copy.par_iter().find_any(|entry| differs(*entry)).map(|(_, tensor)| tensor)?;
    Some(format!(
        "{}: the checkpoint holds a vision tower of its own, which is not read, and differs from the one that is, {} (its `{}`, for \
         one); if it was trained, set unfreeze_mm_vision_tower to true in config.json",
        config.display(),
        tower.display(),
        different.name
    ))
}

fn equal(copy: &StoredTensor, read: &StoredTensor) -> bool {
    copy.shape == read.shape && copy.dtype.is_float() && read.dtype.is_float() && {
        let (copy, read) = (copy.data(), read.data().convert_dtype(copy.dtype));
        copy.as_bytes() == read.as_bytes()
    }
}

/// A note on rotary frequencies in the checkpoint, which are computed from the config and not read; none if they are the same.
pub(super) fn frequencies(checkpoint: &Checkpoint, config: &LlamaConfig) -> Option<String> {
    let (_, stored) = checkpoint.tensors.iter().find(|(name, _)| name.ends_with(".rotary_emb.inv_freq"))?;
    let width = config.head_dim() as f64;
    let computed = (0..config.head_dim() / 2).map(|i| config.rope_theta.powf(-2.0 * i as f64 / width));
    let found: Vec<f64> = if stored.dtype.is_float() { stored.data().iter::<f64>().collect() } else { Vec::new() };
    // Stored in bf16 they are off by up to a half of a hundredth.
    let near = |(found, computed): (&f64, f64)| (found - computed).abs() <= 0.01 * computed;
    let same = found.len() == config.head_dim() / 2 && found.iter().zip(computed).all(near);
    (!same).then(|| {
        format!(
            "{}: `{}` is not read, and holds other rotary frequencies than rope_theta {} in config.json gives",
            stored.path().display(),
            stored.name,
            config.rope_theta
        )
    })
}
