//! The settings of a run: all that is needed to run it again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error,
    files::read_json,
    pruner::{Budget, Params, method},
    shard::Shard,
    task::{Protocol, Sample, Task, spread},
};

/// Its name in a run folder.
pub(super) const CONFIG: &str = "config.json";

/// All that is needed to run it again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RunConfig {
    /// The benchmark.
    pub benchmark: String,
    /// Whose scoring rules.
    pub protocol: Protocol,
    /// The checkpoint, as given.
    pub model: String,
    /// The method.
    pub method: String,
    /// The source of the method's rule, where it is not the method's official code for such a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Its parameters.
    pub params: BTreeMap<String, f64>,
    /// Its budget; none without pruning.
    pub tokens: Option<Budget>,
    /// The number of tokens that a share keeps of each item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<usize>,
    /// Where it ran.
    pub backend: String,
    /// The weights' type, if it was asked for.
    pub dtype: Option<String>,
    /// The image encoder of a language model in GGUF, if it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mmproj: Option<String>,
    /// The mixture of blocks that the language model's weights were put into, if this was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantize: Option<String>,
    /// The numbers by which weights in blocks were multiplied, if not activations as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<String>,
    /// The layouts of blocks that the weights' file has, from the most frequent down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<String>,
    /// The CLIP checkpoint whose text side is read, if it was named.
    #[serde(default)]
    pub clip: Option<String>,
    /// How LLaVA-NeXT's tiles are chosen, if not as the method does.
    #[serde(default)]
    pub grid: Option<String>,
    /// How LLaVA-NeXT's crops are joined, if not as the method does.
    #[serde(default)]
    pub merge: Option<String>,
    /// The smallest number of pixels that images are resized to, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_pixels: Option<usize>,
    /// The largest number of pixels that images are resized to, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<usize>,
    /// The penalty for repetition in the checkpoint's own settings, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repetition_penalty: Option<f32>,
    /// The seed.
    pub seed: u64,
    /// How freely answers are drawn; 0 takes the best token.
    #[serde(default)]
    pub temperature: f32,
    /// The benchmark's data.
    pub data: PathBuf,
    /// Only the first so many questions.
    pub limit: Option<usize>,
    /// Whether these are the first of the file, and not spread over categories.
    #[serde(default, skip_serializing_if = "is_false")]
    pub first: bool,
    /// The part of these, if the run is split.
    #[serde(default)]
    pub shard: Option<Shard>,
    /// SHA-256 of the checkpoint's files.
    #[serde(default)]
    pub checkpoint_sha256: String,
    /// SHA-256 of the files of CLIP's text side, where the method reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clip_sha256: String,
    /// SHA-256 of the questions, and of their images' names.
    #[serde(default)]
    pub data_sha256: String,
    /// The longest answer.
    pub max_new_tokens: usize,
    /// Secateur's version.
    pub version: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(value: &bool) -> bool {
    !value
}

impl RunConfig {
    /// Whether each answer is the one that `other` gives: how many are asked for, and how they are scored, does not matter,
    /// nor where machines have the same files. Runs from before there were checksums may go on.
    pub fn gives_answers_of(&self, other: &Self) -> bool {
        self.as_one_of(other) == *other
    }

    /// These settings, with those of `other` where a difference changes no answer.
    pub(super) fn as_one_of(&self, other: &Self) -> Self {
        let mut same = Self { limit: other.limit, first: other.first, protocol: other.protocol, ..self.clone() };
        let known = |sum: &String| !sum.is_empty();
        if known(&self.checkpoint_sha256) && self.checkpoint_sha256 == other.checkpoint_sha256 {
            same.model.clone_from(&other.model);
            same.mmproj.clone_from(&other.mmproj);
        }
        if known(&self.clip_sha256) && self.clip_sha256 == other.clip_sha256 {
            same.clip.clone_from(&other.clip);
        }
        if known(&self.data_sha256) && self.data_sha256 == other.data_sha256 {
            same.data.clone_from(&other.data);
        }
        for (own, theirs) in [
            (&mut same.checkpoint_sha256, &other.checkpoint_sha256),
            (&mut same.clip_sha256, &other.clip_sha256),
            (&mut same.data_sha256, &other.data_sha256),
        ] {
            if own.is_empty() {
                own.clone_from(theirs);
            }
        }
        same
    }

    /// The questions that the run asks of all `samples`, in the order in which they are asked.
    pub fn asked(&self, task: &dyn Task, samples: Vec<Sample>) -> Vec<Sample> {
        asked(task, samples, self.limit, self.first)
    }

    /// The parameters that are not the method's own.
    pub fn chosen_params(&self) -> Vec<(&str, f64)> {
        let usual = method(&self.method, Params::default()).map(|method| method.parameters()).unwrap_or_default();
        let params = self.params.iter().map(|(name, value)| (name.as_str(), *value));
        params.filter(|param| !usual.contains(param)).collect()
    }

    /// Whether papers' figures can stand beside it: all questions, scored by LLaVA's rules, the best token always, and a method as it is.
    pub fn is_usual(&self) -> bool {
        let whole = self.limit.is_none() && self.shard.is_none();
        let tiles =
            self.grid.is_none() && self.merge.is_none() && self.min_pixels.is_none() && self.max_pixels.is_none();
        whole && tiles && self.protocol == Protocol::Llava && self.temperature == 0.0 && self.chosen_params().is_empty()
    }

    /// The number of tokens that stay of each item; none without pruning.
    pub fn kept(&self) -> Option<usize> {
        match self.tokens? {
            Budget::Tokens(tokens) => Some(tokens),
            Budget::Share(_) => self.share,
        }
    }

    /// The last part of the checkpoint's path or id.
    pub fn model_name(&self) -> String {
        let name = Path::new(&self.model).file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| "model".to_owned())
    }

    /// Model, method and budget for people: `llava-v1.5-7b · fastervlm · 64 tokens`.
    pub fn heading(&self) -> String {
        let tokens = match self.tokens {
            None => "all tokens".to_owned(),
            Some(tokens) => format!("{tokens} tokens"),
        };
        let seed = if self.reads_seed() { format!(", seed {}", self.seed) } else { String::new() };
        format!("{} · {} · {tokens}{seed}", self.model_name(), self.method)
    }

    /// Whether the method chooses by the seed.
    pub fn reads_seed(&self) -> bool {
        method(&self.method, Params::default()).is_ok_and(|method| method.card().needs.fingerprint)
    }

    /// `<benchmark>-<model>-<method>-<tokens>`, with `-seed-<n>` for a seed of its own where it is read, and `.shard-<i>-of-<n>` for a part of
    /// a run.
    pub fn folder_name(&self) -> String {
        let tokens = self.tokens.map_or_else(|| "all".to_owned(), |tokens| tokens.to_string());
        let seed = match self.seed {
            0 => String::new(),
            seed if self.reads_seed() => format!("-seed-{seed}"),
            _ => String::new(),
        };
        let shard = self.shard.map_or_else(String::new, |shard| format!(".shard-{}-of-{}", shard.index, shard.count));
        format!("{}-{}-{}-{tokens}{seed}{shard}", self.benchmark, self.model_name(), self.method)
    }
}

/// The questions of a run with a limit, in the order in which they are asked: spread over the categories, or the `first` of the file.
pub fn asked(task: &dyn Task, mut samples: Vec<Sample>, limit: Option<usize>, first: bool) -> Vec<Sample> {
    match limit {
        None => samples,
        Some(limit) if first || limit >= samples.len() => {
            samples.truncate(limit);
            samples
        }
        Some(limit) => spread(samples, limit, task.card().together),
    }
}

/// The settings that a run folder was made for.
///
/// # Errors
/// When the folder holds no run's settings.
pub fn read_config(folder: &Path) -> Result<RunConfig, Error> {
    let path = folder.join(CONFIG);
    let config: RunConfig = read_json(&path, "no run is in this folder")?;
    // These become a part of paths.
    for (field, name) in [("benchmark", &config.benchmark), ("method", &config.method)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(Error::data(
                &path,
                format!("{field} `{}` is no name that a run has", secateur_weights::printable(name)),
            ));
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn papers_figures_stand_beside_runs_that_are_like_theirs() {
        let usual = json!({
            "benchmark": "pope", "protocol": "llava", "model": "m", "method": "vispruner", "params": {"important_ratio": 0.5},
            "tokens": 64, "backend": "flex", "dtype": "f16", "seed": 0, "data": "", "limit": null, "shard": null,
            "checkpoint_sha256": "", "data_sha256": "", "max_new_tokens": 8, "version": "0.1.0",
        });
        let with = |key: &str, value: Value| {
            let mut config = usual.clone();
            config[key] = value;
            serde_json::from_value::<RunConfig>(config).unwrap()
        };
        assert!(with("dtype", json!("bf16")).is_usual());
        for (key, value) in [
            ("protocol", json!("lmms-eval")),
            ("params", json!({"important_ratio": 0.25})),
            ("limit", json!(100)),
            ("temperature", json!(0.2)),
            ("merge", json!("unpad")),
        ] {
            assert!(!with(key, value).is_usual(), "{key}");
        }
    }
}
