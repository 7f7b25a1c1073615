//! What can be typed. The doc comments are the help.

use std::path::PathBuf;

use burn::tensor::DType;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::{image::GridRule, merge::Merge, shard::Shard, task::Protocol};

/// Training-free visual token pruning for vision-language models.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Shows what pruning does to accuracy and speed, with the checkpoint inside the binary
    Demo(DemoArgs),
    /// Answers a question about pictures
    Ask(AskArgs),
    /// Runs a benchmark, resumes an interrupted run, scores it
    Eval(EvalArgs),
    /// Runs methods × budgets × benchmarks, and makes one table
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
    Bench(BenchArgs),
    /// Runs one method on tensors exported from anywhere
    Prune(PruneArgs),
    /// Lists what is there
    List(ListArgs),
}

#[derive(Clone, Debug, ClapArgs)]
pub(super) struct ModelArgs {
    /// A checkpoint folder, a Hugging Face id, or `demo`
    #[arg(long, default_value = "liuhaotian/llava-v1.5-7b", value_name = "ID|DIR")]
    pub(super) model: String,
    #[command(flatten)]
    pub(super) method: MethodArgs,
    /// What weights are kept in, by default as in the checkpoint; with bf16, CPUs that can multiply in it, too
    #[arg(long)]
    pub(super) dtype: Option<WeightType>,
    /// The CLIP checkpoint whose text side cdpruner and trim read; by default the tower's own, or OpenAI's for llava-hf
    #[arg(long, value_name = "ID|DIR")]
    pub(super) clip: Option<String>,
    /// LLaVA-NeXT: how the grid of tiles is chosen; by default as in the method's own repository
    #[arg(long)]
    pub(super) grid: Option<GridRule>,
    /// LLaVA-NeXT: how crops become one sequence; by default as in the method's own repository
    #[arg(long)]
    pub(super) merge: Option<Merge>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(super) struct MethodArgs {
    /// The pruning method; see `secateur list methods`. `ask` takes several, with commas, or `all`
    #[arg(long, default_value = "fastervlm")]
    pub(super) method: String,
    /// Visual tokens kept per crop; without it nothing is pruned
    #[arg(long, value_name = "N")]
    pub(super) tokens: Option<usize>,
    /// vispruner: the share of the tokens that goes by attention, from 0 to 1
    #[arg(long, default_value_t = 0.5, value_name = "SHARE", allow_negative_numbers = true)]
    pub(super) important_ratio: f64,
    /// cdpruner: how much the question counts, from 0 to below 1; by default relevance is taken as it is
    #[arg(long, value_name = "SHARE", allow_negative_numbers = true)]
    pub(super) theta: Option<f64>,
    /// fastv: how many layers of the language model see all tokens
    #[arg(long, default_value_t = 2, value_name = "K")]
    pub(super) fastv_layer: usize,
    /// Where to run; see `secateur list backends`. By default the first that is compiled in
    #[arg(long)]
    pub(super) backend: Option<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
}

/// Types that weights can be kept in.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum WeightType {
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
pub(super) struct AskArgs {
    /// Pictures, then the question
    #[arg(required = true, num_args = 2.., value_names = ["IMAGE", "QUESTION"])]
    pub(super) images_and_question: Vec<String>,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// The longest answer
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub(super) max_new_tokens: usize,
    /// 0 takes the best token; higher draws more freely
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(super) temperature: f32,
    /// Draws among the best tokens that together have this chance
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    pub(super) top_p: f32,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct DemoArgs {
    /// Methods, with commas, or `all`
    #[arg(long, default_value = "all")]
    pub(super) method: String,
    /// Questions for each method and budget, up to 400
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub(super) questions: usize,
    /// Where to run; see `secateur list backends`. By default the first that is compiled in
    #[arg(long)]
    pub(super) backend: Option<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Where pictures of the kept tokens go
    #[arg(long, value_name = "DIR", default_value = "secateur-demo")]
    pub(super) out: PathBuf,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct BenchArgs {
    /// A checkpoint folder or a Hugging Face id
    #[arg(long, value_name = "ID|DIR", conflicts_with = "shape")]
    pub(super) model: Option<String>,
    /// Random weights in a known shape: llava-1.5-7b, llava-1.5-13b, llava-1.6-7b, llava-1.6-13b, video-7b; or demo, the
    /// built-in checkpoint, which is the default
    #[arg(long, value_name = "NAME")]
    pub(super) shape: Option<String>,
    /// Layers of a shape's language model, if not all of them fit here
    #[arg(long, value_name = "N", requires = "shape")]
    pub(super) layers: Option<usize>,
    /// Methods, with commas, or `all`
    #[arg(long, default_value = "fastervlm")]
    pub(super) method: String,
    /// Budgets, with commas: visual tokens kept per crop
    #[arg(long, value_delimiter = ',', value_name = "N,…", default_values_t = [192, 128, 64, 29])]
    pub(super) budgets: Vec<usize>,
    /// Tokens of text in the prompt
    #[arg(long, value_name = "N", default_value_t = 40)]
    pub(super) prompt_tokens: usize,
    /// Tokens of every answer
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(super) new_tokens: usize,
    /// Measured rounds, after one that warms up
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub(super) repeats: usize,
    /// What weights are kept in, by default as in the checkpoint, f16 for a shape; with bf16, CPUs that can multiply in it, too
    #[arg(long)]
    pub(super) dtype: Option<WeightType>,
    /// The CLIP checkpoint whose text side cdpruner and trim read, if it is not the tower's own
    #[arg(long, value_name = "ID|DIR", requires = "model")]
    pub(super) clip: Option<String>,
    /// Where to run; see `secateur list backends`. By default the first that is compiled in
    #[arg(long)]
    pub(super) backend: Option<String>,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct EvalArgs {
    /// The benchmark; see `secateur list benchmarks`
    pub(super) benchmark: String,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// The benchmark's folder in LLaVA's layout; by default where a checkout of LLaVA has it, else fetched from the hub
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Only the first N questions
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Questions that are answered side by side: the same answers up to rounding, for more memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) batch_size: usize,
    /// Computes what questions have in common for each of them again, to measure what reuse saves
    #[arg(long)]
    pub(super) no_reuse: bool,
    /// Only part I, counted from 0, of N; filled by itself in a SLURM array or an indexed Kubernetes job
    #[arg(long, value_name = "I/N")]
    pub(super) shard: Option<Shard>,
    /// Where run folders go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(super) out: PathBuf,
    /// Throws away what an earlier run of this name has, and starts again
    #[arg(long)]
    pub(super) force: bool,
    /// Whose scoring rules
    #[arg(long, default_value = "llava")]
    pub(super) protocol: Protocol,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// The judge of mm-vet and llava-bench.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(super) struct JudgeArgs {
    /// mm-vet, llava-bench: a server that speaks OpenAI's chat interface, up to `/v1`; the key is read from OPENAI_API_KEY
    #[arg(long, value_name = "URL")]
    pub(super) judge_url: Option<String>,
    /// The model that judges; by default the one that the benchmark's authors, or lmms-eval, use
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    pub(super) judge_model: Option<String>,
    /// Dollars for a million tokens of requests and of replies, for the estimate before it starts
    #[arg(long, value_name = "IN,OUT", requires = "judge_url", value_parser = price)]
    pub(super) judge_price: Option<[f64; 2]>,
    /// A file with the instruction to the judge, in place of Secateur's; for llava-bench LLaVA's rule.json too
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    pub(super) judge_prompt: Option<PathBuf>,
}

/// Two prices with a comma between them.
fn price(text: &str) -> Result<[f64; 2], String> {
    let prices: Option<Vec<f64>> = text.split(',').map(|price| price.trim().parse().ok()).collect();
    match prices.as_deref() {
        Some(&[to, from]) if to >= 0.0 && from >= 0.0 => Ok([to, from]),
        _ => Err("two prices with a comma between them, as in 2.5,10".to_owned()),
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct SweepArgs {
    /// The benchmarks; see `secateur list benchmarks`
    #[arg(required = true, value_name = "BENCHMARK")]
    pub(super) benchmarks: Vec<String>,
    /// Budgets, with commas: visual tokens kept per crop
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(super) budgets: Vec<usize>,
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// The folder of the only benchmark in LLaVA's layout; by default as for `eval`
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Only the first N questions of each benchmark
    #[arg(long, value_name = "N")]
    pub(super) limit: Option<usize>,
    /// Where run folders and the table go
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(super) out: PathBuf,
    /// Whose scoring rules
    #[arg(long, default_value = "llava")]
    pub(super) protocol: Protocol,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct MergeArgs {
    /// The run folders of all shards
    #[arg(required = true, value_name = "DIR")]
    pub(super) shards: Vec<PathBuf>,
    /// Where the whole run's folder goes; by default beside the shards
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
    /// Throws away what an earlier run of this name has
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct PullArgs {
    /// A Hugging Face id, or the name of a benchmark
    #[arg(value_name = "MODEL|BENCHMARK")]
    pub(super) id: String,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ScoreArgs {
    /// The benchmark; see `secateur list benchmarks`
    pub(super) benchmark: String,
    /// An answers file in LLaVA's format, one JSON object a line; scienceqa and mmbench also read what their scorer and
    /// server give back
    pub(super) answers: PathBuf,
    /// Writes what the benchmark's server takes to this file
    #[arg(long, value_name = "FILE")]
    pub(super) upload: Option<PathBuf>,
    /// The benchmark's folder in LLaVA's layout; by default where a checkout of LLaVA has it, else fetched from the hub
    #[arg(long, value_name = "DIR")]
    pub(super) data: Option<PathBuf>,
    /// Whose scoring rules
    #[arg(long, default_value = "llava")]
    pub(super) protocol: Protocol,
    #[command(flatten)]
    pub(super) judge: JudgeArgs,
    /// Ends stdout with one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct TraceArgs {
    #[command(flatten)]
    pub(super) model: ModelArgs,
    /// The picture
    #[arg(long)]
    pub(super) image: PathBuf,
    /// The question, as it stands in the benchmark's file
    #[arg(long)]
    pub(super) question: String,
    /// What cdpruner and trim give CLIP; by default the question without "Answer the question using a single word or
    /// phrase."
    #[arg(long, value_name = "TEXT")]
    pub(super) clip_text: Option<String>,
    /// The longest answer
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(super) max_new_tokens: usize,
    /// Adds the logits of the first generated position
    #[arg(long)]
    pub(super) logits: bool,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct PruneArgs {
    #[command(flatten)]
    pub(super) method: MethodArgs,
    /// A safetensors file with the f32 tensors that the method needs, of V crops with N patches: features [V,N,C],
    /// projected [V,N,D], cls_attention [L,V,H,N], image_embeds [V,N,E], text_embeds [S,E], prompt_embeds [P,D],
    /// keys [V,N,K], and prompt_attention [H,T] for fastv
    pub(super) cues: PathBuf,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(super) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(super) struct ListArgs {
    /// What to list; everything without it
    pub(super) what: Option<Listing>,
    /// Prints the table of methods that README has
    #[arg(long, hide = true)]
    pub(super) markdown: bool,
    /// Prints one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// What can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Listing {
    Methods,
    Models,
    Benchmarks,
    Backends,
}
