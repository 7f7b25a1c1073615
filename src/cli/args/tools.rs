//! The flags of the subcommands that measure, check and list.

use std::path::PathBuf;

use clap::{ArgGroup, ArgMatches, Args as ClapArgs, Command, FromArgMatches, ValueEnum};

use super::{MethodArgs, ModelArgs, TargetArgs, WeightArgs};
use crate::{
    model::{Beside, Quantise},
    pruner::Budget,
};

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct BenchArgs {
    /// A checkpoint folder, a Hugging Face id, or a GGUF file
    #[arg(long, value_name = "ID|PATH", conflicts_with = "shape")]
    pub(in crate::cli) model: Option<String>,
    /// Random weights in a known shape: llava-1.5-7b, llava-1.5-13b, llava-1.6-7b, llava-1.6-13b, qwen2.5-vl-3b, qwen2.5-vl-7b,
    /// video-7b and others, which an unknown name lists; or demo, the built-in checkpoint, which is the default
    #[arg(long, value_name = "NAME")]
    pub(in crate::cli) shape: Option<String>,
    /// Layers of a shape's decoder, if not all of them fit here
    #[arg(long, value_name = "N", requires = "shape")]
    pub(in crate::cli) layers: Option<usize>,
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
    #[command(flatten)]
    pub(in crate::cli) weights: WeightArgs,
    /// Measures a large product and a large copy, too, and prints which share of them prefill and decoding reach
    #[arg(long)]
    pub(in crate::cli) ceilings: bool,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct TraceArgs {
    #[command(flatten)]
    pub(in crate::cli) media: MediaArgs,
    /// The question, as it stands in the benchmark's file
    #[arg(long, required_unless_present = "messages")]
    pub(in crate::cli) question: Option<String>,
    /// A conversation in place of images and question: a JSON list of messages, as OpenAI's API and transformers have them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["question", "image", "video"])]
    pub(in crate::cli) messages: Option<PathBuf>,
    /// The text that cdpruner and trim give CLIP; by default the question without "Answer the question using a single
    /// word or phrase."
    #[arg(long, value_name = "TEXT")]
    pub(in crate::cli) clip_text: Option<String>,
    /// The longest answer
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(in crate::cli) max_new_tokens: usize,
    /// Writes the cues that the method reads to a safetensors file, in the form that `prune` takes
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) cues: Option<PathBuf>,
    /// Writes what the language model reads of the images without pruning, and what the method ranks by, to a safetensors file: visual [N,D], cue [N]
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) embeds: Option<PathBuf>,
    /// Adds the logits of the first generated position, and the position of each row of the prompt
    #[arg(long)]
    pub(in crate::cli) logits: bool,
    /// A penalty for repetition, as in transformers' `generate`; by default none, whatever the checkpoint's settings say
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub(in crate::cli) repetition_penalty: f32,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) model: ModelArgs,
}

/// Images and videos in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct MediaArgs(pub(in crate::cli) Vec<MediaPath>);

/// The path of an image or of a video.
#[derive(Clone, Debug)]
pub(in crate::cli) struct MediaPath {
    pub(in crate::cli) path: PathBuf,
    pub(in crate::cli) video: bool,
}

/// The flags as clap derives them, without their order.
#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("seen").args(["image", "video", "messages"]).required(true).multiple(true)))]
struct RawMediaArgs {
    /// The image; several are read in the order in which they and the videos are given
    #[arg(long)]
    image: Vec<PathBuf>,
    /// The video: a file, or a folder of frames that are taken in the order of their names and the numbers in them
    #[arg(long)]
    video: Vec<PathBuf>,
}

impl ClapArgs for MediaArgs {
    fn augment_args(command: Command) -> Command {
        RawMediaArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        RawMediaArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for MediaArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let RawMediaArgs { image, video } = RawMediaArgs::from_arg_matches(matches)?;
        let placed = |name: &str, paths: Vec<PathBuf>, video: bool| {
            let places: Vec<usize> = matches.indices_of(name).into_iter().flatten().collect();
            places.into_iter().zip(paths).map(move |(place, path)| (place, MediaPath { path, video }))
        };
        let mut all: Vec<(usize, MediaPath)> =
            placed("image", image, false).chain(placed("video", video, true)).collect();
        all.sort_by_key(|(place, _)| *place);
        Ok(Self(all.into_iter().map(|(_, media)| media).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct PruneArgs {
    /// A safetensors file with the f32 tensors that the method needs, of V crops with N patches: features [V,N,C],
    /// projected [V,N,D], cls_attention [L,V,H,N], image_embeds [V,N,E], text_embeds [S,E], prompt_embeds [P,D],
    /// keys [V,N,K], and prompt_attention [H,T] for fastv; `-` reads it from standard input
    pub(in crate::cli) cues: PathBuf,
    /// Writes the tokens that stay, pooled ones behind the others, to a safetensors file: tokens [V,n,D], from projected
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) out: Option<PathBuf>,
    /// Accepted for symmetry: the output is always one JSON object
    #[arg(long, hide = true)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) method: MethodArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct CheckArgs {
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
    #[command(flatten)]
    pub(in crate::cli) target: TargetArgs,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct ListArgs {
    /// The list to print; all lists without it
    pub(in crate::cli) what: Option<Listing>,
    /// Only lines with all of these words, such as a model, a method, a budget and a benchmark of `published`
    #[arg(value_name = "WORD")]
    pub(in crate::cli) words: Vec<String>,
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
    /// The figures of papers, which are no part of `list` alone
    Published,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct CompletionsArgs {
    /// The shell
    pub(in crate::cli) shell: clap_complete::Shell,
}

#[derive(Debug, ClapArgs)]
pub(in crate::cli) struct QuantizeArgs {
    /// A checkpoint folder, a Hugging Face id, a GGUF file, or `demo`
    #[arg(value_name = "MODEL")]
    pub(in crate::cli) model: String,
    /// The language model's file to write; the image encoder is written beside it, as mmproj-FILE.gguf
    #[arg(value_name = "FILE.gguf")]
    pub(in crate::cli) out: PathBuf,
    /// The blocks: 8 bits in all matrices, or 4 and 6 (llama.cpp's Q4_K_M)
    #[arg(long, default_value = "q4_k", value_name = "BLOCKS")]
    pub(in crate::cli) blocks: Quantise,
    /// The image encoder of a language model in GGUF; by default the only one (mmproj) beside it
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) mmproj: Option<String>,
    /// Writes files anew that are there already
    #[arg(long)]
    pub(in crate::cli) force: bool,
    /// Prints one JSON object to stdout; text for people goes to stderr
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl QuantizeArgs {
    /// The files beside the model that are named.
    pub(in crate::cli) fn beside(&self) -> Beside<'_> {
        Beside { mmproj: self.mmproj.as_deref(), clip: None }
    }
}
