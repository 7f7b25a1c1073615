//! The flags of a model, a method, and the device that runs them.

use burn::tensor::DType;
use clap::{Args as ClapArgs, ValueEnum, builder::PossibleValue};
use secateur_backends::{BackendError, Target, operations::use_reference};

use super::names::{self, Operations};
use crate::{
    cli::workers::own_device,
    image::GridRule,
    model::{Beside, Checkpoint, DEMO, LoadOptions, PixelChoice, Quantise},
    pruner::Budget,
    sequence::Merge,
};

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Model")]
pub(in crate::cli) struct ModelArgs {
    /// A checkpoint folder, a Hugging Face id, a GGUF file, or `demo`; by default liuhaotian/llava-v1.5-7b, and `demo` for the benchmark
    /// `demo`
    #[arg(long, value_name = "ID|PATH")]
    pub(in crate::cli) model: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) weights: WeightArgs,
    /// LLaVA-NeXT: how the grid of tiles is chosen; by default as in the method's own repository
    #[arg(long)]
    pub(in crate::cli) grid: Option<GridRule>,
    /// LLaVA-NeXT: how crops become one sequence; by default as in the method's own repository
    #[arg(long)]
    pub(in crate::cli) merge: Option<Merge>,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
}

/// How weights are read and multiplied.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(in crate::cli) struct WeightArgs {
    /// The image encoder of a language model in GGUF; by default the only one (mmproj) beside it
    #[arg(long, value_name = "FILE", requires = "model")]
    pub(in crate::cli) mmproj: Option<String>,
    /// The type of the weights, by default the checkpoint's; bf16 also lets CPUs multiply in bf16
    #[arg(long)]
    pub(in crate::cli) dtype: Option<WeightType>,
    /// Puts the language model's weights into blocks of 8 bits, or of 4 and 6 (llama.cpp's Q4_K_M)
    #[arg(long, value_name = "BLOCKS")]
    pub(in crate::cli) quantize: Option<Quantise>,
    /// The numbers by which weights in blocks are multiplied; int8 is faster, and rounds as llama.cpp does
    #[arg(long, value_enum, default_value_t)]
    pub(in crate::cli) activations: Activations,
    /// Qwen2-VL: the smallest number of pixels that an image or a frame is resized to; by default the checkpoint's
    #[arg(long, value_name = "N")]
    pub(in crate::cli) min_pixels: Option<usize>,
    /// Qwen2-VL: the largest number of pixels that an image or a frame is resized to; by default the checkpoint's
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_pixels: Option<usize>,
    /// The CLIP checkpoint whose text side cdpruner and trim read; by default the tower's own, or OpenAI's for llava-hf
    #[arg(long, value_name = "ID|DIR")]
    pub(in crate::cli) clip: Option<String>,
}

impl WeightArgs {
    /// The files beside the model that are named.
    pub(in crate::cli) fn beside(&self) -> Beside<'_> {
        Beside { mmproj: self.mmproj.as_deref(), clip: self.clip.as_deref() }
    }

    /// The numbers of pixels that the user wants in place of the checkpoint's.
    pub(in crate::cli) fn pixels(&self) -> PixelChoice {
        PixelChoice { least: self.min_pixels, most: self.max_pixels }
    }

    /// Takes the numbers of pixels that the user wants in place of the checkpoint's.
    pub(in crate::cli) fn set_pixels(&self, checkpoint: &mut Checkpoint) -> anyhow::Result<()> {
        if let Err(reason) = checkpoint.set_pixels(self.pixels()) {
            usage!("--min-pixels and --max-pixels: {reason}");
        }
        Ok(())
    }

    /// The options for loading, for methods that read CLIP's text side if `joint` says so.
    pub(in crate::cli) fn options(&self, joint: bool) -> LoadOptions {
        LoadOptions {
            dtype: self.dtype.map(DType::from),
            joint,
            quantise: self.quantize,
            int8: self.activations == Activations::Int8,
            ..LoadOptions::default()
        }
    }
}

/// The numbers by which weights in blocks are multiplied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Activations {
    /// Numbers as they are, in f32 or bf16
    #[default]
    Float,
    /// Whole numbers of 8 bits, with a scale for every 16
    Int8,
}

impl ValueEnum for Quantise {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Method")]
pub(in crate::cli) struct MethodArgs {
    /// The pruning method, by default fastervlm; see `secateur list methods`
    #[arg(long, value_parser = names::method_list, value_name = "NAME")]
    pub(in crate::cli) method: Option<String>,
    /// Visual tokens kept per crop, image or frame of a video: a number, or a share such as 12.5%; without it nothing is pruned
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
