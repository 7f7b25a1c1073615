//! `secateur prune`: methods on tensors from a file.

use std::{
    io,
    path::{Path, PathBuf},
};

use burn::tensor::Tensor;
use secateur_backends::{Job, Target, VlmBackend};
use secateur_weights::Checkpoint;
use serde::Serialize;

use super::{
    args::PruneArgs,
    cues::{check_shares, read, read_cues, write_tensors},
    plan::MethodPlan,
    print_json,
};
use crate::{
    Error,
    files::address,
    pruner::{Blend, Budget, Selector, selector},
    sequence::gather,
    tensor::host,
};

pub(super) fn run(args: PruneArgs) -> anyhow::Result<()> {
    if args.method.tokens.is_none() && args.method.list() != "none" {
        usage!("how many patches of each crop to keep is missing; give it with --tokens");
    }
    if let Some(error) = address(&args.cues) {
        return Err(error.into());
    }
    let plans = MethodPlan::several(&args.method)?;
    if args.out.is_some() && plans.len() > 1 {
        usage!("--out takes the tokens of one method; give one with --method");
    }
    // Tensors are read from a file, wherever in it they stand.
    let piped = (args.cues == Path::new("-")).then(Piped::read).transpose()?;
    let file = piped.as_ref().map_or_else(|| args.cues.clone(), |piped| piped.0.clone());
    let target: Target = plans[0].target;
    let results = target.run(Prune { plans, cues: args.cues, file, out: args.out })??;
    print_json(&Results { first: &results[0], results: &results })
}

/// The content of standard input, in a file that goes with this value.
struct Piped(PathBuf);

impl Piped {
    fn read() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("secateur-cues-{}.safetensors", std::process::id()));
        let piped = Self(path);
        // A file or a link of this name is another's, or left by a process that was killed: it is never written through.
        let _ = std::fs::remove_file(&piped.0);
        let copied =
            std::fs::File::create_new(&piped.0).and_then(|mut file| io::copy(&mut io::stdin().lock(), &mut file));
        copied.map_err(Error::io(&piped.0, "standard input cannot be kept"))?;
        Ok(piped)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Prune {
    plans: Vec<MethodPlan>,
    /// The name of the file as it was given.
    cues: PathBuf,
    file: PathBuf,
    out: Option<PathBuf>,
}

/// The results of all methods, and the first one's beside them: one shape for one method and for several.
#[derive(Serialize)]
struct Results<'a> {
    #[serde(flatten)]
    first: &'a Pruned,
    results: &'a [Pruned],
}

#[derive(Serialize)]
struct Pruned {
    method: &'static str,
    tokens: usize,
    kept: Vec<Vec<usize>>,
    /// The tokens that a method makes of several patches, for each crop; left out where there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    merged: Vec<Vec<Merged>>,
}

/// A token made of several patches: their sum by these weights.
#[derive(Serialize)]
struct Merged {
    patches: Vec<usize>,
    weights: Vec<f64>,
}

impl From<&Blend> for Merged {
    fn from(Blend { centre, others }: &Blend) -> Self {
        let mean = std::iter::repeat_n(1.0 / others.len() as f64, others.len());
        Self {
            patches: centre.iter().chain(others).copied().collect(),
            weights: centre.iter().map(|_| 1.0).chain(mean).collect(),
        }
    }
}

impl Job for Prune {
    type Output = anyhow::Result<Vec<Pruned>>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let file = Checkpoint::open_file(&self.file)?;
        self.plans.iter().map(|plan| self.one::<B>(plan, &file, &device)).collect()
    }
}

impl Prune {
    fn one<B: VlmBackend>(&self, plan: &MethodPlan, file: &Checkpoint, device: &B::Device) -> anyhow::Result<Pruned> {
        let (method, tokens) = (plan.method, plan.tokens);
        let mut merged = Vec::new();
        let kept = match selector::<B>(method, plan.params)? {
            Selector::Before(pruner) => {
                let cues = read_cues::<B>(&self.cues, file, device)?;
                let tokens = match tokens {
                    Some(Budget::Tokens(tokens)) => Ok(tokens),
                    budget => cues.grid(method).and_then(|(_, tokens)| budget.map_or(Ok(tokens), |b| b.of(tokens))),
                };
                let kept = tokens.and_then(|tokens| pruner.keep(&cues, tokens));
                let keep = kept.map_err(|error| beside(error, &self.cues, file))?;
                if keep.blends().iter().any(|crop| !crop.is_empty()) {
                    merged = keep.blends().iter().map(|crop| crop.iter().map(Merged::from).collect()).collect();
                }
                if let Some(out) = &self.out {
                    let projected = cues.projected(method).map_err(|error| beside(error, &self.cues, file))?;
                    let tokens = gather(projected, &keep);
                    write_tensors(out, &[("tokens", tokens.dims().to_vec(), &host(tokens))])?;
                }
                keep.indices().to_vec()
            }
            Selector::Inside(_) if self.out.is_some() => {
                usage!("--out: {method} prunes inside the language model, and makes no tokens")
            }
            Selector::Inside(pruner) => {
                let (cue, shape) = ("prompt_attention", "[heads, visual tokens]");
                let missing = || beside(Error::MissingCue { method, cue, shape }, &self.cues, file);
                let stored = file.tensors.get(cue).ok_or_else(missing)?;
                let fail = |reason: String| Error::Cues { path: self.cues.clone(), reason };
                let attention: Tensor<B, 2> = read(cue, stored, device).map_err(fail)?;
                let width = attention.dims()[1];
                check_shares(cue, &host(attention.clone()), width).map_err(fail)?;
                let tokens = tokens.map_or(Ok(0), |budget| budget.of(width))?;
                vec![pruner.keep(attention, tokens)?]
            }
        };
        let tokens = kept.first().map_or(0, Vec::len);
        Ok(Pruned { method, tokens, kept, merged })
    }
}

/// Adds to the error of a missing cue the names of the tensors that the file has.
fn beside(error: Error, path: &Path, file: &Checkpoint) -> anyhow::Error {
    let is_missing = matches!(error, Error::MissingCue { .. });
    let error = anyhow::Error::from(error);
    if !is_missing {
        return error;
    }
    let names: Vec<&str> = file.tensors.keys().map(String::as_str).collect();
    let names = if names.is_empty() { "no tensor".to_owned() } else { names.join(", ") };
    error.context(format!("{} has {names}", path.display()))
}
