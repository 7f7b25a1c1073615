//! `secateur prune`: one method on tensors from a file.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Tensor, backend::Backend};
use secateur_backends::{Job, VlmBackend};
use secateur_weights::{Checkpoint, StoredTensor};
use serde::Serialize;

use super::{args::PruneArgs, plan::MethodPlan, print_json};
use crate::{
    Error,
    pruner::{Cues, pruner},
};

pub(super) fn run(args: PruneArgs) -> anyhow::Result<()> {
    let plan = MethodPlan::new(&args.method)?;
    let backend = plan.backend;
    let pruned = secateur_backends::run(backend, Prune { plan, cues: args.cues })??;
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
}

impl Job for Prune {
    type Output = anyhow::Result<Pruned>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let pruner = pruner::<B>(self.plan.method, self.plan.params)?;
        let cues = read_cues::<B>(&self.cues, &device)?;
        let budget = match (self.plan.tokens, cues.grid()) {
            (Some(tokens), _) => tokens,
            (None, Some((_, patches))) => patches,
            (None, None) => 1,
        };
        let keep = pruner.keep(&cues, budget)?;
        Ok(Pruned { method: pruner.name(), tokens: keep.budget(), kept: keep.indices().to_vec() })
    }
}

/// Reads the cues that are in the file; a method names those that it misses.
fn read_cues<B: Backend>(path: &Path, device: &B::Device) -> Result<Cues<B>, Error> {
    let file = Checkpoint::open_file(path)?;
    let fail = |reason: String| Error::Cues { path: path.to_owned(), reason };
    let tensor3 = |name| file.tensors.get(name).map(|stored| read(name, stored, device)).transpose().map_err(fail);
    let cues = Cues::<B> {
        features: tensor3("features")?,
        projected: tensor3("projected")?,
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

/// `prompt_embeds` may have no rows: then nothing follows the picture.
fn read_text<B: Backend>(stored: &StoredTensor, device: &B::Device) -> Result<Option<Tensor<B, 2>>, String> {
    if stored.shape.first() == Some(&0) { Ok(None) } else { read("prompt_embeds", stored, device).map(Some) }
}

/// Crops and patches are the same in every tensor that has them, and widths where they meet.
fn check_grids<B: Backend>(cues: &Cues<B>) -> Result<(), String> {
    let of_features = |x: &Tensor<B, 3>| (x.dims()[0], x.dims()[1]);
    let of_attention = |x: &Tensor<B, 4>| (x.dims()[1], x.dims()[3]);
    let grids = [
        ("features", cues.features.as_ref().map(of_features)),
        ("projected", cues.projected.as_ref().map(of_features)),
        ("cls_attention", cues.cls_attention.as_ref().map(of_attention)),
    ];
    let mut there = grids.iter().filter_map(|(name, grid)| grid.map(|grid| (name, grid)));
    let Some((first, grid)) = there.next() else { return Ok(()) };
    if let Some((other, (crops, patches))) = there.find(|(_, other)| *other != grid) {
        let (v, n) = grid;
        return Err(format!("`{first}` has {v} crops of {n} patches, `{other}` {crops} of {patches}; they must agree"));
    }
    if let (Some(projected), Some(Some(text))) = (&cues.projected, &cues.prompt_embeds) {
        let (a, b) = (projected.dims()[2], text.dims()[1]);
        if a != b {
            return Err(format!("`projected` is {a} wide, `prompt_embeds` {b}; they must agree"));
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
    Ok(Tensor::from_data(tensor.data().convert_dtype(DType::F32), (device, DType::F32)))
}
