//! The arguments of the command line. The doc comments are the help.

mod benchmarks;
mod environment;
mod images;
mod model;
mod names;
#[cfg(feature = "serve")]
mod serve;
mod tools;

use std::path::PathBuf;

pub(in crate::cli) use benchmarks::{
    CompareArgs, EvalArgs, Format, JudgeArgs, MergeArgs, PullArgs, RunArgs, ScoreArgs, SweepArgs, TuneArgs,
};
use clap::{Arg, Args as ClapArgs, Parser, Subcommand};
pub(in crate::cli) use environment::command;
pub use environment::{Unread, parse};
pub(in crate::cli) use images::{Analysis, AnalyzeArgs, ReportArgs, ShowArgs};
pub(in crate::cli) use model::{MethodArgs, ModelArgs, TargetArgs, WeightArgs, WeightType};
#[cfg(feature = "serve")]
pub(in crate::cli) use serve::ServeArgs;
pub(in crate::cli) use tools::{
    BenchArgs, CheckArgs, CompletionsArgs, ListArgs, Listing, MediaPath, PruneArgs, QuantizeArgs, TraceArgs,
};

/// Training-free visual token pruning for vision-language models.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    max_term_width = 100,
    after_help = "Every flag can be given as a variable, too: --model as SECATEUR_MODEL. `secateur help COMMAND` has the flags."
)]
pub struct Args {
    #[command(subcommand)]
    pub(in crate::cli) command: Command,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Command {
    /// Shows what pruning does to accuracy and speed, with the checkpoint inside the binary
    #[command(after_help = "Examples:\n  secateur demo\n  secateur demo --questions 400 --seeds 5 --json")]
    Demo(DemoArgs),
    /// Answers a question about images or a video
    #[command(override_usage = "secateur ask [OPTIONS] <IMAGE|VIDEO>... <QUESTION>", mut_arg("method", several))]
    #[command(
        after_help = "Examples:\n  secateur ask --tokens 64 photo.jpg \"What is unusual here?\"\n  secateur ask --model demo --method fastervlm,trim --tokens 64 image.png \"Is there a red ring in the image?\""
    )]
    Ask(AskArgs),
    /// Answers requests in OpenAI's form, each with a method and a budget of its own, and shows a page to try it
    #[cfg(feature = "serve")]
    #[command(mut_arg("method", usual_method), mut_arg("tokens", usual_tokens), mut_arg("model", usual_model))]
    #[command(
        after_help = "Examples:\n  secateur serve\n  secateur serve --model llava-hf/llava-1.5-7b-hf --tokens 64 --api-key-file keys.txt"
    )]
    Serve(ServeArgs),
    /// Runs a benchmark, resumes an interrupted run, scores it
    #[command(
        after_help = "Examples:\n  secateur eval pope --tokens 64 --limit 300\n  secateur eval mme --method vispruner --tokens 12.5% --devices all"
    )]
    Eval(EvalArgs),
    /// Runs methods × budgets × benchmarks, and makes one table
    #[command(mut_arg("method", several), mut_arg("tokens", one_budget))]
    #[command(
        after_help = "Examples:\n  secateur sweep pope gqa --method fastervlm,random --budgets 192,64 --seeds 5\n  secateur sweep --config sweep.toml --format latex"
    )]
    Sweep(SweepArgs),
    /// Finds the smallest budget at which each method keeps a share of the score without pruning
    #[command(mut_arg("method", several), mut_arg("tokens", |arg| arg.hide(true)))]
    #[command(
        after_help = "Examples:\n  secateur tune demo --target 97%\n  secateur tune pope --method fastervlm,trim --limit 900"
    )]
    Tune(TuneArgs),
    /// Joins the shards of a run, and scores it
    #[command(after_help = "Examples:\n  secateur merge runs/*.shard-*\n  secateur merge runs/*.shard-* --out whole")]
    Merge(MergeArgs),
    /// Downloads a checkpoint or a benchmark's data ahead
    #[command(after_help = "Examples:\n  secateur pull llava-hf/llava-1.5-7b-hf\n  secateur pull pope")]
    Pull(PullArgs),
    /// Writes a checkpoint as GGUF files in blocks of a few bits
    #[command(
        after_help = "Examples:\n  secateur quantize liuhaotian/llava-v1.5-7b llava-v1.5-7b-Q4_K_M.gguf\n  secateur quantize demo demo-Q8_0.gguf --blocks q8_0"
    )]
    Quantize(QuantizeArgs),
    /// Scores an answers file without a model
    #[command(
        after_help = "Examples:\n  secateur score pope answers.jsonl\n  secateur score gqa runs/gqa-llava-v1.5-7b-fastervlm-64 --json"
    )]
    Score(ScoreArgs),
    /// Prints everything that a port must agree on, as one JSON object
    #[command(
        after_help = "Examples:\n  secateur trace --model demo --image image.png --question \"Is there a red ring in the image?\"\n  secateur trace --model demo --image image.png --question \"What is it?\" --cues cues.safetensors"
    )]
    Trace(TraceArgs),
    /// Measures the time of every stage, and counts FLOPs and cache size
    #[command(mut_arg("method", several), mut_arg("tokens", one_budget))]
    #[command(
        after_help = "Examples:\n  secateur bench --shape llava-1.5-7b --layers 2 --method none,fastervlm --tokens 64\n  secateur bench --ceilings --json"
    )]
    Bench(BenchArgs),
    /// Draws what each method keeps of an image or a video, or where CLIP sees words
    #[command(mut_arg("method", several), mut_arg("tokens", drawn))]
    #[command(
        after_help = "Examples:\n  secateur show photo.jpg \"What is unusual here?\" --method fastervlm,cdpruner --tokens 64 --heat\n  secateur show photo.jpg --relevance dog,grass"
    )]
    Show(ShowArgs),
    /// Compares finished runs on the questions that they share
    #[command(
        after_help = "Examples:\n  secateur compare runs/pope-llava-v1.5-7b-none-all runs/pope-llava-v1.5-7b-fastervlm-64\n  secateur compare runs/demo-* --json"
    )]
    Compare(CompareArgs),
    /// Makes one page of finished runs: charts, tables, and questions on which methods disagree
    #[command(after_help = "Examples:\n  secateur report runs\n  secateur report runs --gallery 0 --out page")]
    Report(ReportArgs),
    /// Measures the attention to visual tokens, in the tower and layer by layer in the decoder
    #[command(
        after_help = "Examples:\n  secateur analyze attention-shift questions.jsonl --images images\n  secateur analyze attention-dispersion questions.jsonl --limit 100"
    )]
    Analyze(AnalyzeArgs),
    /// Runs methods on tensors exported from anywhere
    #[command(mut_arg("method", several), mut_arg("tokens", |arg| arg.help("Patches kept of each crop; `none` alone goes without")))]
    #[command(
        after_help = "Examples:\n  secateur prune cues.safetensors --method fastervlm --tokens 64\n  secateur prune - --method all --tokens 12.5% < cues.safetensors"
    )]
    Prune(PruneArgs),
    /// Checks whether a device computes what the papers' code did, and how fast
    #[command(after_help = "Examples:\n  secateur check\n  secateur check --backend wgpu --device 1 --json")]
    Check(CheckArgs),
    /// Lists what is there
    #[command(after_help = "Examples:\n  secateur list methods\n  secateur list published llava-1.5-7b fastervlm gqa")]
    List(ListArgs),
    /// Prints a script that completes commands, flags and names in a shell
    #[command(
        after_help = "Examples:\n  secateur completions bash > ~/.local/share/bash-completion/completions/secateur\n  secateur completions zsh"
    )]
    Completions(CompletionsArgs),
    /// Prints the manual page
    Man,
}

impl Command {
    /// Whether stdout is one JSON object.
    pub(in crate::cli) fn ends_with_json(&self) -> bool {
        match self {
            Self::Demo(args) => args.json,
            Self::Ask(args) => args.json,
            Self::Eval(args) => args.run.json,
            Self::Tune(args) => args.run.json,
            Self::Sweep(args) => args.run.json || args.format == Format::Json,
            Self::Merge(args) => args.json,
            Self::Score(args) => args.json,
            Self::Compare(args) => args.json,
            Self::Bench(args) => args.json,
            Self::Check(args) => args.json,
            Self::List(args) => args.json,
            Self::Trace(_) | Self::Prune(_) => true,
            Self::Show(args) => args.json,
            Self::Report(args) => args.json,
            Self::Analyze(args) => args.json,
            Self::Pull(args) => args.json,
            Self::Quantize(args) => args.json,
            #[cfg(feature = "serve")]
            Self::Serve(_) => false,
            Self::Completions(_) | Self::Man => false,
        }
    }
}

/// Sets the help of `--method` where it takes several.
fn several(arg: Arg) -> Arg {
    arg.help("Methods, with commas, or `all`; see `secateur list methods`")
}

/// Sets the help of `--method` where requests choose.
#[cfg(feature = "serve")]
fn usual_method(arg: Arg) -> Arg {
    arg.help("The method of requests that name none; see `secateur list methods`")
}

/// Sets the help of `--model` where it is the built-in checkpoint by default.
#[cfg(feature = "serve")]
fn usual_model(arg: Arg) -> Arg {
    arg.help("A checkpoint folder, a Hugging Face id, a GGUF file, or `demo`, the built-in one; by default `demo`")
}

/// Sets the help of `--tokens` where requests choose.
#[cfg(feature = "serve")]
fn usual_tokens(arg: Arg) -> Arg {
    arg.help("Visual tokens kept per crop for requests that have no budget; without it these are not pruned")
}

/// Sets the help of `--tokens` where nothing is drawn without it.
fn drawn(arg: Arg) -> Arg {
    arg.help("Visual tokens kept per crop, or per frame of a video; without it only --relevance is drawn")
}

/// Sets the help of `--tokens` beside `--budgets`.
fn one_budget(arg: Arg) -> Arg {
    arg.help("One more budget; alone, the only one")
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct AskArgs {
    /// Images, or videos for a model that sees them (files, or folders of frames), then the question
    #[arg(required_unless_present = "messages", num_args = 2.., value_names = ["IMAGE|VIDEO", "QUESTION"])]
    pub(in crate::cli) images_and_question: Vec<String>,
    /// A conversation in place of images and question: a JSON list of messages, as OpenAI's API and transformers have them
    #[arg(long, value_name = "FILE", conflicts_with = "images_and_question")]
    pub(in crate::cli) messages: Option<PathBuf>,
    /// The longest answer
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(in crate::cli) max_new_tokens: usize,
    /// 0 takes the best token; higher draws more freely
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(in crate::cli) temperature: f32,
    /// Draws in the terminal what is kept of the first image: images in kitty's protocol or sixel, coloured cells elsewhere
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// Draws among the best tokens that together have this chance
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(in crate::cli) top_p: f32,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct DemoArgs {
    /// Methods, with commas, or `all`
    #[arg(long, default_value = "all", value_parser = names::method_list)]
    pub(in crate::cli) method: String,
    /// Questions for each method and budget, up to 400
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(in crate::cli) questions: usize,
    /// Seed of everything random
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) seed: u64,
    /// Seeds of the method that draws at random, whose mean the table has
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) seeds: u64,
    /// Where images of the kept tokens go
    #[arg(long, value_name = "DIR", default_value = "secateur-demo")]
    pub(in crate::cli) out: PathBuf,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
}
