//! The mapping of names in files to paths in modules.

use std::collections::BTreeMap;

use crate::{Checkpoint, StoredTensor, WeightsError};

/// A name that a checkpoint may hold and the model has no place for.
#[derive(Clone, Copy, Debug)]
pub struct Ignored {
    /// The start of the name.
    pub prefix: &'static str,
    /// The end of the name.
    pub suffix: &'static str,
    /// The reason why such a tensor is left out.
    pub why: &'static str,
}

/// A rename table: data, so that it can be read beside the checkpoint's index.
///
/// The first prefix that fits is replaced; names that fit none keep their name, and then show up as unused when the
/// module is filled.
#[derive(Clone, Copy, Debug)]
pub struct Rename {
    /// The pairs `(prefix in the file, prefix in the module)`.
    pub prefixes: &'static [(&'static str, &'static str)],
    /// The pairs `(part in the file, part in the module)`, which may stand anywhere in a name; the first that is there is replaced.
    pub parts: &'static [(&'static str, &'static str)],
    /// The names that are left out on purpose.
    pub ignored: &'static [Ignored],
}

impl Rename {
    /// The tensors of a checkpoint under their module paths.
    ///
    /// # Errors
    /// When two tensors would get the same path.
    pub fn apply(&self, checkpoint: Checkpoint) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
        let mut renamed = BTreeMap::new();
        for (name, tensor) in checkpoint.tensors {
            let Some(path) = self.path(&name) else { continue };
            if renamed.insert(path.clone(), tensor).is_some() {
                let reason = format!("`{name}` and another tensor are both the model's `{path}`");
                return Err(WeightsError::Unsupported { path: checkpoint.path, reason });
            }
        }
        Ok(renamed)
    }

    /// The module path of one name; `None` if it is left out.
    pub fn path(&self, name: &str) -> Option<String> {
        let fits = |rule: &Ignored| {
            name.len() >= rule.prefix.len() + rule.suffix.len()
                && name.starts_with(rule.prefix)
                && name.ends_with(rule.suffix)
        };
        if self.ignored.iter().any(fits) {
            return None;
        }
        let renamed =
            self.prefixes.iter().find_map(|(from, to)| name.strip_prefix(from).map(|rest| format!("{to}{rest}")));
        let renamed = renamed.unwrap_or_else(|| name.to_owned());
        let part = self.parts.iter().find(|(from, _)| renamed.contains(from));
        Some(part.map_or_else(|| renamed.clone(), |(from, to)| renamed.replacen(from, to, 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Rename = Rename {
        prefixes: &[("model.mm_projector.0.", "projector.linear_1."), ("model.", "language_model.")],
        parts: &[],
        ignored: &[Ignored { prefix: "model.", suffix: ".inv_freq", why: "computed" }],
    };

    #[test]
    fn the_first_fitting_row_wins() {
        assert_eq!(TABLE.path("model.mm_projector.0.bias").as_deref(), Some("projector.linear_1.bias"));
        assert_eq!(TABLE.path("model.norm.weight").as_deref(), Some("language_model.norm.weight"));
        assert_eq!(TABLE.path("stray").as_deref(), Some("stray"));
        assert_eq!(TABLE.path("model.layers.0.rotary_emb.inv_freq"), None);
    }
}
