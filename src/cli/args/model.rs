//! The flags of a model, a method, and the device that runs them.

use burn::tensor::DType;
use clap::{Args as ClapArgs, ValueEnum};
use secateur_backends::{BackendError, Target, operations::use_reference};

use super::names::{self, Operations};
use crate::{cli::workers::own_device, image::GridRule, model::DEMO, pruner::Budget, sequence::Merge};

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Model")]
pub(in crate::cli) struct ModelArgs {
    /// A checkpoint folder, a Hugging Face id, or `demo`; by default liuhaotian/llava-v1.5-7b, and `demo` for the benchmark `demo`
    #[arg(long, value_name = "ID|DIR")]
    pub(in crate::cli) model: Option<String>,
    /// The type of the weights, by default the checkpoint's; bf16 also lets CPUs multiply in bf16
    #[arg(long)]
    pub(in crate::cli) dtype: Option<WeightType>,
    /// The CLIP checkpoint whose text side cdpruner and trim read; by default the tower's own, or OpenAI's for llava-hf
    #[arg(long, value_name = "ID|DIR")]
    pub(in crate::cli) clip: Option<String>,
    /// LLaVA-NeXT: how the grid of tiles is chosen; by default as in the method's own repository
    #[arg(long)]
    pub(in crate::cli) grid: Option<GridRule>,
    /// LLaVA-NeXT: how crops become one sequence; by default as in the method's own repository
    #[arg(long)]
    pub(in crate::cli) merge: Option<Merge>,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Method")]
pub(in crate::cli) struct MethodArgs {
    /// The pruning method, by default fastervlm; see `secateur list methods`
    #[arg(long, value_parser = names::method_list, value_name = "NAME")]
    pub(in crate::cli) method: Option<String>,
    /// Visual tokens kept per crop, or per frame of a video: a number, or a share such as 12.5%; without it nothing is pruned
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) tokens: Option<Budget>,
    /// vispruner: the share of the tokens that goes by attention, from 0 to 1; by default 0.5
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(in crate::cli) important_ratio: Option<f64>,
    /// cdpruner: how much the question counts, from 0 to 0.98; by default relevance is taken as it is
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(in crate::cli) theta: Option<f64>,
    /// fastv: how many layers of the decoder see all tokens; by default 2
    #[arg(long, value_name = "K")]
    pub(in crate::cli) fastv_layer: Option<usize>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) seed: u64,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
}

impl ModelArgs {
    /// The checkpoint.
    pub(in crate::cli) fn model(&self) -> &str {
        self.model.as_deref().unwrap_or("liuhaotian/llava-v1.5-7b")
    }

    /// Takes the built-in checkpoint where none is named and all benchmarks are its own.
    pub(in crate::cli) fn for_benchmarks(mut self, benchmarks: &[String]) -> Self {
        if benchmarks.iter().all(|benchmark| benchmark == DEMO) {
            self.model.get_or_insert_with(|| DEMO.to_owned());
        }
        self
    }
}

impl MethodArgs {
    /// The methods, with commas, or `all`.
    pub(in crate::cli) fn list(&self) -> &str {
        self.method.as_deref().unwrap_or("fastervlm")
    }
}

/// Where to run.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Device")]
pub(in crate::cli) struct TargetArgs {
    /// Where to run; see `secateur list backends`. By default the first that is compiled in
    #[arg(long, value_name = "NAME", value_parser = names::backend)]
    pub(in crate::cli) backend: Option<String>,
    /// The number of the backend's device; see `secateur list devices`. By default the one that its driver ranks first
    #[arg(long, value_name = "N")]
    pub(in crate::cli) device: Option<usize>,
    /// Operations that run by their reference bodies, with commas: those that `secateur check` finds wrong on a device
    #[arg(long, value_parser = names::operations, value_name = "OPERATION,…", env = "SECATEUR_REFERENCE")]
    pub(in crate::cli) reference: Option<Operations>,
}

impl TargetArgs {
    /// Lets operations go by their reference bodies, where this is asked for.
    pub(in crate::cli) fn use_reference(&self) {
        use_reference(self.reference.as_ref().map_or(&[][..], |Operations(operations)| operations));
    }

    /// The backend and its device, which must answer. Operations go by their reference bodies from now on, where this is asked for.
    pub(in crate::cli) fn choose(&self) -> Result<Target, BackendError> {
        self.use_reference();
        Target::choose(self.backend.as_deref(), own_device().or(self.device))
    }
}

/// Types that weights can be kept in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum WeightType {
    F32,
    F16,
    Bf16,
}

impl From<WeightType> for DType {
    fn from(value: WeightType) -> Self {
        match value {
            WeightType::F32 => Self::F32,
            WeightType::F16 => Self::F16,
            WeightType::Bf16 => Self::BF16,
        }
    }
}
