//! `secateur prune`: one method on tensors from a file.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur_backends::{Job, VlmBackend};
use secateur_weights::{Checkpoint, StoredTensor};
use serde::Serialize;

use super::{args::PruneArgs, plan::MethodPlan, print_json};
use crate::{
    Error,
    files::address,
    pruner::{Blend, Budget, Cues, Selector, selector},
};

pub(super) fn run(args: PruneArgs) -> anyhow::Result<()> {
    if args.method.tokens.is_none() && args.method.list() != "none" {
        usage!("how many patches of each crop to keep is missing; give it with --tokens");
    }
    if let Some(error) = address(&args.cues) {
        return Err(error.into());
    }
    let plan = MethodPlan::new(&args.method)?;
    let target = plan.target;
    let pruned = target.run(Prune { plan, cues: args.cues })??;
    print_json(&pruned)
}

struct Prune {
    plan: MethodPlan,
    cues: PathBuf,
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
    type Output = anyhow::Result<Pruned>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let file = Checkpoint::open_file(&self.cues)?;
        let (method, tokens) = (self.plan.method, self.plan.tokens);
        let mut merged = Vec::new();
        let kept = match selector::<B>(method, self.plan.params)? {
            Selector::Before(pruner) => {
                let cues = read_cues::<B>(&self.cues, &file, &device)?;
                let tokens = match tokens {
                    Some(Budget::Tokens(tokens)) => Ok(tokens),
                    budget => cues.grid(method).and_then(|(_, tokens)| budget.map_or(Ok(tokens), |b| b.of(tokens))),
                };
                let kept = tokens.and_then(|tokens| pruner.keep(&cues, tokens));
                let keep = kept.map_err(|error| beside(error, &self.cues, &file))?;
                if keep.blends().iter().any(|crop| !crop.is_empty()) {
                    merged = keep.blends().iter().map(|crop| crop.iter().map(Merged::from).collect()).collect();
                }
                keep.indices().to_vec()
            }
            Selector::Inside(pruner) => {
                let (cue, shape) = ("prompt_attention", "[heads, visual tokens]");
                let missing = || beside(Error::MissingCue { method, cue, shape }, &self.cues, &file);
                let stored = file.tensors.get(cue).ok_or_else(missing)?;
                let fail = |reason: String| Error::Cues { path: self.cues.clone(), reason };
                let attention: Tensor<B, 2> = read(cue, stored, &device).map_err(fail)?;
                let tokens = tokens.map_or(Ok(0), |budget| budget.of(attention.dims()[1]))?;
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

/// Reads the cues that are in the file. A method's error names the cues that are missing.
fn read_cues<B: Backend>(path: &Path, file: &Checkpoint, device: &B::Device) -> Result<Cues<B>, Error> {
    let fail = |reason: String| Error::Cues { path: path.to_owned(), reason };
    let tensor3 = |name| file.tensors.get(name).map(|stored| read(name, stored, device)).transpose().map_err(fail);
    let cues = Cues::<B> {
        layout: None,
        features: tensor3("features")?,
        projected: tensor3("projected")?,
        image_embeds: tensor3("image_embeds")?,
        keys: tensor3("keys")?,
        text_embeds: file
            .tensors
            .get("text_embeds")
            .map(|t| read("text_embeds", t, device))
            .transpose()
            .map_err(fail)?,
        fingerprint: 0,
        cls_attention: file
            .tensors
            .get("cls_attention")
            .map(|t| read("cls_attention", t, device))
            .transpose()
            .map_err(fail)?,
        prompt_embeds: file.tensors.get("prompt_embeds").map(|t| read_text(t, device)).transpose().map_err(fail)?,
    };
    check_grids(&cues).map_err(fail)?;
    Ok(cues)
}

/// Reads `prompt_embeds`, which may have no rows: then no text follows the image.
fn read_text<B: Backend>(stored: &StoredTensor, device: &B::Device) -> Result<Option<Tensor<B, 2>>, String> {
    if stored.shape.first() == Some(&0) { Ok(None) } else { read("prompt_embeds", stored, device).map(Some) }
}

/// Checks that all cues have the same crops and patches, and the same widths where they are multiplied.
fn check_grids<B: Backend>(cues: &Cues<B>) -> Result<(), String> {
    let of_features = |x: &Tensor<B, 3>| (x.dims()[0], x.dims()[1]);
    let of_attention = |x: &Tensor<B, 4>| (x.dims()[1], x.dims()[3]);
    let grids = [
        ("features", cues.features.as_ref().map(of_features)),
        ("projected", cues.projected.as_ref().map(of_features)),
        ("image_embeds", cues.image_embeds.as_ref().map(of_features)),
        ("keys", cues.keys.as_ref().map(of_features)),
        ("cls_attention", cues.cls_attention.as_ref().map(of_attention)),
    ];
    let mut there = grids.iter().filter_map(|(name, grid)| grid.map(|grid| (name, grid)));
    let Some((first, grid)) = there.next() else { return Ok(()) };
    if let Some((other, (crops, patches))) = there.find(|(_, other)| *other != grid) {
        let (v, n) = grid;
        return Err(format!("`{first}` has {v} crops of {n} patches, `{other}` {crops} of {patches}; they must agree"));
    }
    let width = |x: &Tensor<B, 3>| x.dims()[2];
    let text_width = |x: &Tensor<B, 2>| x.dims()[1];
    let pairs = [
        (
            ("projected", cues.projected.as_ref().map(width)),
            ("prompt_embeds", cues.prompt_embeds.as_ref().and_then(|text| text.as_ref().map(text_width))),
        ),
        (
            ("image_embeds", cues.image_embeds.as_ref().map(width)),
            ("text_embeds", cues.text_embeds.as_ref().map(text_width)),
        ),
    ];
    for ((image, a), (text, b)) in pairs {
        if let (Some(a), Some(b)) = (a, b)
            && a != b
        {
            return Err(format!("`{image}` is {a} wide, `{text}` {b}; they must agree"));
        }
    }
    Ok(())
}

fn read<B: Backend, const D: usize>(
    name: &str,
    tensor: &StoredTensor,
    device: &B::Device,
) -> Result<Tensor<B, D>, String> {
    if tensor.shape.len() != D || tensor.shape.contains(&0) {
        return Err(format!("`{name}` has shape {:?}; expected {D} dimensions, none of them 0", tensor.shape));
    }
    if !tensor.dtype.is_float() {
        return Err(format!("`{name}` has type {:?}; expected f32", tensor.dtype));
    }
    let data = tensor.data().convert_dtype(DType::F32);
    if data.iter::<f32>().any(|value| !value.is_finite()) {
        return Err(format!("`{name}` holds NaN or infinity, which no method can rank"));
    }
    Ok(Tensor::from_data(data, (device, DType::F32)))
}
