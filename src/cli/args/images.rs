//! The flags of the subcommands that make images and pages.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};

use super::{ModelArgs, TargetArgs, WeightArgs};
use crate::{cli::workers::WorkerArgs, drawing::HeatBy, plot::Scale};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ShowArgs {
    /// The image, or a video for a model that sees videos
    #[arg(value_name = "IMAGE|VIDEO")]
    pub(in crate::cli) media: PathBuf,
    /// The question, which some methods read
    pub(in crate::cli) question: Option<String>,
    /// Draws what each method ranks patches by, too, where it has such a number
    #[arg(long)]
    pub(in crate::cli) heat: bool,
    /// How the numbers of --heat become colours
    #[arg(long, default_value = "rank", value_name = "SCALE")]
    pub(in crate::cli) heat_by: HeatBy,
    /// Writes JPEG files, which are smaller than PNG files
    #[arg(long)]
    pub(in crate::cli) jpeg: bool,
    /// Words, with commas: where CLIP sees each of them in the image, as CDPruner counts it
    #[arg(long, value_delimiter = ',', value_name = "WORD,…")]
    pub(in crate::cli) relevance: Vec<String>,
    /// The colours of numbers; by default viridis for scores and jet, as in CDPruner's figures, for relevance
    #[arg(long)]
    pub(in crate::cli) colormap: Option<Scale>,
    /// Where the images go; by default a folder of the image and the budget in secateur-show
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ReportArgs {
    /// Run folders, as `eval` and `sweep` leave them
    #[arg(required = true, value_name = "RUN")]
    pub(in crate::cli) runs: Vec<PathBuf>,
    /// Questions on which methods disagree that are shown with their images; 0 leaves them out and loads no model
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub(in crate::cli) gallery: usize,
    /// Measures the time to the first token here, on the gallery's questions, in place of the times of the runs
    #[arg(long)]
    pub(in crate::cli) measure: bool,
    /// Where the page and its charts go
    #[arg(long, value_name = "DIR", default_value = "secateur-report")]
    pub(in crate::cli) out: PathBuf,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct AnalyzeArgs {
    /// The analysis to run
    pub(in crate::cli) what: Analysis,
    /// Questions in LLaVA's instruction layout, {"id", "image", "conversations"}: an object a line, or one list
    pub(in crate::cli) data: PathBuf,
    /// Where the images are; by default beside the questions
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) images: Option<PathBuf>,
    /// A checkpoint folder, a Hugging Face id, a GGUF file, or `demo`
    #[arg(long, default_value = "liuhaotian/llava-v1.5-7b", value_name = "ID|PATH")]
    pub(in crate::cli) model: String,
    /// Only the first N questions
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(in crate::cli) limit: Option<usize>,
    #[command(flatten)]
    pub(in crate::cli) weights: WeightArgs,
    /// Where images and data go
    #[arg(long, value_name = "DIR", default_value = "secateur-analysis")]
    pub(in crate::cli) out: PathBuf,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
    #[command(flatten)]
    pub(in crate::cli) workers: WorkerArgs,
}

/// The analyses that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Analysis {
    /// The tokens that attention goes to, by their place
    AttentionShift,
    /// On how many tokens it is spread
    AttentionDispersion,
}
