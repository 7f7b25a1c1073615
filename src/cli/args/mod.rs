//! The arguments of the command line. The doc comments are the help.

mod benchmarks;
mod images;
mod names;

use std::path::PathBuf;

pub(in crate::cli) use benchmarks::{EvalArgs, JudgeArgs, MergeArgs, PullArgs, RunArgs, ScoreArgs, SweepArgs};
use burn::tensor::DType;
use clap::{Arg, ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
pub(in crate::cli) use images::{Analysis, AnalyzeArgs, ReportArgs, ShowArgs};
use names::Operations;
use secateur_backends::{BackendError, Target, operations::use_reference};

use super::workers::own_device;
use crate::{image::GridRule, model::DEMO, pruner::Budget, sequence::Merge};

/// Training-free visual token pruning for vision-language models.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Shows what pruning does to accuracy and speed, with the checkpoint inside the binary
    Demo(DemoArgs),
    /// Answers a question about images or a video
    #[command(override_usage = "secateur ask [OPTIONS] <IMAGE|VIDEO>... <QUESTION>", mut_arg("method", several))]
    Ask(AskArgs),
    /// Runs a benchmark, resumes an interrupted run, scores it
    Eval(EvalArgs),
    /// Runs methods × budgets × benchmarks, and makes one table
    #[command(mut_arg("method", several), mut_arg("tokens", one_budget))]
    Sweep(SweepArgs),
    /// Joins the shards of a run, and scores it
    Merge(MergeArgs),
    /// Downloads a checkpoint or a benchmark's data ahead
    Pull(PullArgs),
    /// Scores an answers file without a model
    Score(ScoreArgs),
    /// Prints everything that a port must agree on, as one JSON object
    Trace(TraceArgs),
    /// Measures the time of every stage, and counts FLOPs and cache size
    #[command(mut_arg("method", several), mut_arg("tokens", one_budget))]
    Bench(BenchArgs),
    /// Draws what each method keeps of an image or a video, or where CLIP sees words
    #[command(mut_arg("method", several), mut_arg("tokens", drawn))]
    Show(ShowArgs),
    /// Makes one page of finished runs: charts, tables, and questions on which methods disagree
    Report(ReportArgs),
    /// Measures the attention to visual tokens, in the tower and layer by layer in the decoder
    Analyze(AnalyzeArgs),
    /// Runs one method on tensors exported from anywhere
    #[command(mut_arg("tokens", |arg| arg.help("Patches kept of each crop; `none` alone goes without")))]
    Prune(PruneArgs),
    /// Checks whether a device computes what the papers' code did, and how fast
    Check(CheckArgs),
    /// Lists what is there
    List(ListArgs),
}

impl Command {
    /// Whether stdout is one JSON object.
    pub(in crate::cli) fn ends_with_json(&self) -> bool {
        match self {
            Self::Demo(args) => args.json,
            Self::Ask(args) => args.json,
            Self::Eval(args) => args.run.json,
            Self::Sweep(args) => args.run.json,
            Self::Merge(args) => args.json,
            Self::Score(args) => args.json,
            Self::Bench(args) => args.json,
            Self::Check(args) => args.json,
            Self::List(args) => args.json,
            Self::Trace(_) | Self::Prune(_) => true,
            Self::Pull(_) | Self::Show(_) | Self::Report(_) | Self::Analyze(_) => false,
        }
    }
}

/// Sets the help of `--method` where it takes several.
fn several(arg: Arg) -> Arg {
    arg.help("Methods, with commas, or `all`; see `secateur list methods`")
}

/// Sets the help of `--tokens` where nothing is drawn without it.
fn drawn(arg: Arg) -> Arg {
    arg.help("Visual tokens kept per crop, or per frame of a video; without it only --relevance is drawn")
}

/// Sets the help of `--tokens` beside `--budgets`.
fn one_budget(arg: Arg) -> Arg {
    arg.help("One more budget; alone, the only one")
}

#[derive(Clone, Debug, ClapArgs)]
pub(in crate::cli) struct ModelArgs {
    /// A checkpoint folder, a Hugging Face id, or `demo`; by default liuhaotian/llava-v1.5-7b, and `demo` for the benchmark `demo`
    #[arg(long, value_name = "ID|DIR")]
    pub(in crate::cli) model: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
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
}

#[derive(Clone, Debug, ClapArgs)]
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
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) seed: u64,
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

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct AskArgs {
    /// Images, or videos for a model that sees them (files, or folders of frames), then the question
    #[arg(required = true, num_args = 2.., value_names = ["IMAGE|VIDEO", "QUESTION"])]
    pub(in crate::cli) images_and_question: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    /// The longest answer
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(in crate::cli) max_new_tokens: usize,
    /// 0 takes the best token; higher draws more freely
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(in crate::cli) temperature: f32,
    /// Draws among the best tokens that together have this chance
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(in crate::cli) top_p: f32,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct DemoArgs {
    /// Methods, with commas, or `all`
    #[arg(long, default_value = "all", value_parser = names::method_list)]
    pub(in crate::cli) method: String,
    /// Questions for each method and budget, up to 400
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(in crate::cli) questions: usize,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) seed: u64,
    /// Where images of the kept tokens go
    #[arg(long, value_name = "DIR", default_value = "secateur-demo")]
    pub(in crate::cli) out: PathBuf,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct BenchArgs {
    /// A checkpoint folder or a Hugging Face id
    #[arg(long, value_name = "ID|DIR", conflicts_with = "shape")]
    pub(in crate::cli) model: Option<String>,
    /// Random weights in a known shape: llava-1.5-7b, llava-1.5-13b, llava-1.6-7b, llava-1.6-13b, video-7b; or demo,
    /// the built-in checkpoint, which is the default
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) shape: Option<String>,
    /// Layers of a shape's decoder, if not all of them fit here
    #[arg(long, value_name = "N", requires = "shape")]
    pub(in crate::cli) layers: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
    /// Budgets, with commas: visual tokens kept per crop; by default, without --tokens, 192,128,64,29
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(in crate::cli) budgets: Vec<Budget>,
    /// Tokens of text in the prompt
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(in crate::cli) prompt_tokens: usize,
    /// Tokens of every answer
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(in crate::cli) new_tokens: usize,
    /// Measured rounds, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(in crate::cli) repeats: usize,
    /// The type of the weights, by default the checkpoint's, f16 for a shape; bf16 also lets CPUs multiply in bf16
    #[arg(long)]
    pub(in crate::cli) dtype: Option<WeightType>,
    /// Measures a large product and a large copy, too, and prints which share of them prefill and decoding reach
    #[arg(long)]
    pub(in crate::cli) ceilings: bool,
    /// The CLIP checkpoint whose text side cdpruner and trim read, if it is not the tower's own
    #[arg(long, value_name = "ID|DIR", requires = "model")]
    pub(in crate::cli) clip: Option<String>,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("seen").args(["image", "video"]).required(true)))]
pub(in crate::cli) struct TraceArgs {
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    /// The image
    #[arg(long)]
    pub(in crate::cli) image: Option<PathBuf>,
    /// The video: a file, or a folder of frames that are taken in the order of their names and the numbers in them
    #[arg(long)]
    pub(in crate::cli) video: Option<PathBuf>,
    /// The question, as it stands in the benchmark's file
    #[arg(long)]
    pub(in crate::cli) question: String,
    /// The text that cdpruner and trim give CLIP; by default the question without "Answer the question using a single
    /// word or phrase."
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) clip_text: Option<String>,
    /// The longest answer
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(in crate::cli) max_new_tokens: usize,
    /// Adds the logits of the first generated position
    #[arg(long)]
    pub(in crate::cli) logits: bool,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PruneArgs {
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
    /// A safetensors file with the f32 tensors that the method needs, of V crops with N patches: features [V,N,C],
    /// projected [V,N,D], cls_attention [L,V,H,N], image_embeds [V,N,E], text_embeds [S,E], prompt_embeds [P,D],
    /// keys [V,N,K], and prompt_attention [H,T] for fastv
    pub(in crate::cli) cues: PathBuf,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct CheckArgs {
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ListArgs {
    /// The list to print; all lists without it
    pub(in crate::cli) what: Option<Listing>,
    /// Prints the table of methods that README has
    #[arg(long, hide = true)]
    pub(in crate::cli) markdown: bool,
    /// Prints one JSON object
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// The lists that can be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Listing {
    Methods,
    Models,
    Benchmarks,
    Backends,
    Devices,
}
