//! The settings of runs, from the plan of a command.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    args::RunArgs,
    benchmark::Benchmark,
    plan::{MethodPlan, ModelPlan},
};
use crate::{
    eval::RunConfig,
    model::DEMO,
    pruner::{Budget, method},
};

/// The settings that all runs with one checkpoint have in common; the checksum in them takes a while.
pub(super) struct Fixed {
    config: RunConfig,
    clip_sha256: String,
    /// Tokens of an item before pruning.
    whole: usize,
    /// Whether every item has so many.
    fixed_grid: bool,
}

impl Fixed {
    pub(super) fn new(plan: &ModelPlan, run: &RunArgs) -> anyhow::Result<Self> {
        let tiling = plan.options.tiling;
        let joint = plan.options.joint;
        Ok(Self {
            whole: plan.checkpoint.grid().tokens(),
            fixed_grid: plan.checkpoint.has_fixed_grid(),
            clip_sha256: if joint { plan.checkpoint.text_side_sha256()? } else { String::new() },
            config: RunConfig {
                benchmark: String::new(),
                protocol: run.protocol,
                model: whole_path(&plan.model)?,
                method: String::new(),
                rule: plan.checkpoint.rules().map(str::to_owned),
                params: BTreeMap::new(),
                tokens: None,
                share: None,
                backend: plan.method().target.backend.to_owned(),
                dtype: plan.options.dtype.map(|dtype| format!("{dtype:?}").to_lowercase()),
                mmproj: plan.mmproj.as_deref().map(whole_path).transpose()?,
                quantize: plan.options.quantise.map(|quantise| quantise.name().to_owned()),
                activations: plan.options.int8.then(|| "int8".to_owned()),
                blocks: plan.checkpoint.blocks(),
                clip: plan.checkpoint.clip().map(whole_path).transpose()?,
                grid: tiling.grid.map(|grid| grid.name().to_owned()),
                merge: tiling.merge.map(|merge| merge.name().to_owned()),
                min_pixels: plan.pixels.least,
                max_pixels: plan.pixels.most,
                repetition_penalty: Some(plan.checkpoint.repetition_penalty()).filter(|penalty| *penalty != 1.0),
                seed: plan.method().seed,
                temperature: run.temperature,
                data: PathBuf::new(),
                limit: run.limit,
                first: run.first,
                shard: None,
                checkpoint_sha256: plan.checkpoint.sha256()?,
                clip_sha256: String::new(),
                data_sha256: String::new(),
                max_new_tokens: 0,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
        })
    }

    pub(super) fn model_name(&self) -> String {
        self.config.model_name()
    }

    /// The settings of one run.
    pub(super) fn config(
        &self,
        plan: &MethodPlan,
        Benchmark { task, data, data_sha256, .. }: &Benchmark,
    ) -> anyhow::Result<RunConfig> {
        let method = method(plan.method, plan.params)?;
        let parameters = method.parameters();
        Ok(RunConfig {
            benchmark: task.name().to_owned(),
            method: plan.method.to_owned(),
            // Without pruning there is no rule.
            rule: self.config.rule.clone().filter(|_| plan.tokens.is_some()),
            params: parameters.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            tokens: plan.tokens,
            share: match plan.tokens {
                // Where the number of tokens depends on the image, a share does too.
                Some(share @ Budget::Share(_)) if self.fixed_grid => Some(share.of(self.whole)?),
                _ => None,
            },
            seed: plan.seed,
            data: data.clone(),
            clip_sha256: if method.card().needs.reads_question() { self.clip_sha256.clone() } else { String::new() },
            data_sha256: data_sha256.clone(),
            max_new_tokens: task.card().max_new_tokens,
            ..self.config.clone()
        })
    }
}

/// The whole path of a folder (`.` is another model in another place), and an id as it is. The built-in checkpoint's
/// name is never a folder.
fn whole_path(model: &str) -> std::io::Result<String> {
    if model != DEMO && Path::new(model).is_dir() {
        return Ok(std::path::absolute(model)?.display().to_string());
    }
    Ok(model.to_owned())
}
