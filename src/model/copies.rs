//! Towers that lie in a checkpoint beside the one that is read.

use std::{collections::BTreeMap, path::Path};

use rayon::prelude::*;
use secateur_weights::{Checkpoint, StoredTensor};

use super::{DecoderConfig, RopeConfig, RopeScaling};

/// A note on a tower in the checkpoint, `copy`, in whose place the tower `read` from the folder `tower` is used; none if both are equal. Tensors are
/// compared in the type of the copy, which training may have saved in 16 bits.
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

/// Takes out the matrix before the logits where the embedding is that matrix, too, as transformers does; returns a note if the two differ.
pub(super) fn tied_head(
    tensors: &mut BTreeMap<String, StoredTensor>,
    config: &DecoderConfig,
    path: &Path,
) -> Option<String> {
    if !config.tied {
        return None;
    }
    let head = tensors.remove("language_model.lm_head.weight")?;
    let embedding = tensors.get("language_model.embed_tokens.weight")?;
    (!equal(&head, embedding)).then(|| {
        format!(
            "{}: tie_word_embeddings is true, so that the embedding is used before the logits, too; the checkpoint's `{}` differs from it \
             and is not read",
            path.display(),
            head.name
        )
    })
}

/// A note on rotary frequencies in the checkpoint, which are computed from the config and not read; none if they are the same.
pub(super) fn frequencies(checkpoint: &Checkpoint, config: &DecoderConfig) -> Option<String> {
    let (_, stored) = checkpoint.tensors.iter().find(|(name, _)| name.ends_with(".rotary_emb.inv_freq"))?;
    // Frequencies before scaling: files hold those.
    let computed = RopeConfig { scaling: RopeScaling::None, ..config.rope }.frequencies(config.head_dim);
    let computed = computed.into_iter().map(f64::from);
    let found: Vec<f64> = if stored.dtype.is_float() { stored.data().iter::<f64>().collect() } else { Vec::new() };
    // Frequencies stored in bf16 are off by up to a half of a hundredth.
    let near = |(found, computed): (&f64, f64)| (found - computed).abs() <= 0.01 * computed;
    let same = found.len() == config.head_dim / 2 && found.iter().zip(computed).all(near);
    (!same).then(|| {
        format!(
            "{}: `{}` is not read, and holds other rotary frequencies than rope_theta {} in config.json gives",
            stored.path().display(),
            stored.name,
            config.rope.theta
        )
    })
}
