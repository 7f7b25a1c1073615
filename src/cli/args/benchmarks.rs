//! The flags of the subcommands that run and score benchmarks.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::{ModelArgs, names::benchmark};
use crate::{
    cli::{check_sampling, workers::WorkerArgs},
    eval::Batching,
    pruner::Budget,
    shard::ShardChoice,
    task::Protocol,
};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct EvalArgs {
    /// The benchmark; see `secateur list benchmarks`
    #[arg(value_parser = benchmark)]
    pub(in crate::cli) benchmark: String,
    /// The benchmark's folder in LLaVA's layout; by default where a checkout of LLaVA has it, else fetched from the hub
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Only part I, counted from 0, of N; `auto` takes them from a SLURM array or an indexed Kubernetes job
    #[arg(long, value_name = "I/N|auto")]
    pub(in crate::cli) shard: Option<ShardChoice>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

/// Flags for the questions of a run, and for its folder.
#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Run")]
pub(in crate::cli) struct RunArgs {
    /// Only N questions, spread over the benchmark's categories
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) limit: Option<usize>,
    /// With --limit: the first N questions of the file, whatever their categories
    #[arg(long, requires = "limit")]
    pub(in crate::cli) first: bool,
    /// 0 takes the best token; higher draws more freely. Video-LLaVA's scripts for videos draw at 0.1
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(in crate::cli) temperature: f32,
    /// Questions that are answered side by side: the same answers up to rounding, for more memory
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(in crate::cli) batch_size: usize,
    /// Computes what questions have in common for each of them again, to measure what reuse saves
    #[arg(long)]
    pub(in crate::cli) no_reuse: bool,
    /// Where run folders go, and the table of a sweep
    #[arg(long, value_name = "DIR", default_value = "runs")]
    pub(in crate::cli) out: PathBuf,
    /// Throws away what an earlier run of this name has, and starts again
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Whose scoring rules
    #[arg(long, default_value = "llava")]
    pub(in crate::cli) protocol: Protocol,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) workers: WorkerArgs,
    #[command(flatten)]
    pub(in crate::cli) judge: JudgeArgs,
}

impl RunArgs {
    /// The batching of the questions; checks what clap cannot check.
    pub(in crate::cli) fn batching(&self) -> anyhow::Result<Batching> {
        if self.limit == Some(0) {
            usage!("--limit 0 leaves no question; leave it out for all of them");
        }
        if self.batch_size == 0 {
            usage!("--batch-size 0 answers nothing; 1 answers the questions one by one");
        }
        check_sampling(self.temperature, 1.0)?;
        Ok(Batching { batch: self.batch_size, reuse: !self.no_reuse })
    }
}

/// The judge of mm-vet, llava-bench and the video benchmarks.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Judge")]
pub(in crate::cli) struct JudgeArgs {
    /// mm-vet, llava-bench, videos: a server that speaks OpenAI's chat interface, up to `/v1`; the key is read from
    /// OPENAI_API_KEY
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) judge_url: Option<String>,
    /// The model that judges; by default the one that the benchmark's authors, or lmms-eval, use
    #[arg(long, value_name = "NAME", requires = "judge_url")]
    pub(in crate::cli) judge_model: Option<String>,
    /// Dollars for a million tokens of requests and of replies, for the estimate before it starts
    #[arg(long, value_name = "IN,OUT", requires = "judge_url", value_parser = price)]
    pub(in crate::cli) judge_price: Option<[f64; 2]>,
    /// A file with the instruction to the judge, in place of Secateur's; for llava-bench LLaVA's rule.json too
    #[arg(long, value_name = "FILE", requires = "judge_url")]
    pub(in crate::cli) judge_prompt: Option<PathBuf>,
}

/// Two prices with a comma between them.
fn price(text: &str) -> Result<[f64; 2], String> {
    let prices: Option<Vec<f64>> = text.split(',').map(|price| price.trim().parse().ok()).collect();
    match prices.as_deref() {
        Some(&[to, from]) if to >= 0.0 && from >= 0.0 => Ok([to, from]),
        _ => Err("two prices with a comma between them, as in 2.5,10".to_owned()),
    }
}

/// Forms of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// Aligned columns, for a terminal
    Table,
    /// Markdown, the best in bold
    Markdown,
    /// LaTeX with booktabs, the best in bold
    Latex,
    /// A row for each score, for spreadsheets
    Csv,
    /// One JSON object, as with --json
    Json,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct SweepArgs {
    /// A TOML file with flags, and `benchmarks`; flags on the command line count before it
    #[arg(long, value_name = "FILE.toml")]
    pub(in crate::cli) config: Option<PathBuf>,
    /// The benchmarks; see `secateur list benchmarks`
    #[arg(required = true, value_name = "BENCHMARK", value_parser = benchmark)]
    pub(in crate::cli) benchmarks: Vec<String>,
    /// Budgets, with commas: visual tokens kept per crop
    #[arg(long, value_delimiter = ',', value_name = "N,…")]
    pub(in crate::cli) budgets: Vec<Budget>,
    /// Runs of methods that draw at random, with seeds from --seed on: the table has their mean
    #[arg(long, value_name = "N", default_value_t = 1, allow_negative_numbers = true)]
    pub(in crate::cli) seeds: u64,
    /// The form of the table on stdout
    #[arg(long, default_value = "table")]
    pub(in crate::cli) format: Format,
    /// The folder of the only benchmark in LLaVA's layout; by default as for `eval`
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct TuneArgs {
    /// The benchmark; see `secateur list benchmarks`
    #[arg(value_parser = benchmark)]
    pub(in crate::cli) benchmark: String,
    /// The share of the score without pruning that must be kept, with its 95 % interval above it
    #[arg(long, value_name = "SHARE", default_value = "99%", value_parser = share)]
    pub(in crate::cli) target: f64,
    /// The benchmark's folder in LLaVA's layout; by default as for `eval`
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
    #[command(flatten)]
    pub(in crate::cli) run: RunArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct CompareArgs {
    /// Run folders of one benchmark; each is compared with the first
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    pub(in crate::cli) runs: Vec<PathBuf>,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct MergeArgs {
    /// The run folders of all shards
    #[arg(required = true, value_name = "DIR")]
    pub(in crate::cli) shards: Vec<PathBuf>,
    /// Where the whole run's folder goes; by default beside the shards
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// The benchmark's files, where they are not (or no longer) where the first shard had them
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Throws away what an earlier run of this name has
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Whose scoring rules; by default those of the first shard
    #[arg(long)]
    pub(in crate::cli) protocol: Option<Protocol>,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) judge: JudgeArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PullArgs {
    /// A Hugging Face id, or the name of a benchmark
    #[arg(value_name = "MODEL|BENCHMARK")]
    pub(in crate::cli) id: String,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ScoreArgs {
    /// The benchmark; see `secateur list benchmarks`
    #[arg(value_parser = benchmark)]
    pub(in crate::cli) benchmark: String,
    /// A run folder, or an answers file in LLaVA's format, one JSON object a line; scienceqa and mmbench also read what their scorer and
    /// server give back
    pub(in crate::cli) answers: PathBuf,
    /// Writes what the benchmark's server takes to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) upload: Option<PathBuf>,
    /// The benchmark's folder in LLaVA's layout; by default where a checkout of LLaVA has it, else fetched from the hub
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) data: Option<PathBuf>,
    /// Whose scoring rules
    #[arg(long, default_value = "llava")]
    pub(in crate::cli) protocol: Protocol,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) judge: JudgeArgs,
}

/// A share in percent: `99%` or `99`.
fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.trim().trim_end_matches('%').trim().parse().ok();
    number
        .filter(|share| *share > 0.0 && *share < 100.0)
        .ok_or_else(|| "a share of the score without pruning, above 0 and below 100 %, as in 99%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read() {
        assert_eq!((share("99%"), share(" 97.5 ")), (Ok(99.0), Ok(97.5)));
        for wrong in ["0", "100%", "most", "-3", "nan"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}
