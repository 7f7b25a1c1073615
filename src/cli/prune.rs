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
        let pruner = pruner::<B>(self.plan.method)?;
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
    let stored = |name: &str| file.tensors.get(name);
    let cues = Cues::<B> {
        features: stored("features").map(|t| read("features", t, device)).transpose().map_err(fail)?,
        cls_attention: stored("cls_attention").map(|t| read("cls_attention", t, device)).transpose().map_err(fail)?,
    };
    if let (Some(features), Some(attention)) = (&cues.features, &cues.cls_attention) {
        let ([crops, patches, _], [_, v, _, n]) = (features.dims(), attention.dims());
        if (crops, patches) != (v, n) {
            return Err(fail(format!(
                "`features` has {crops} crops of {patches} patches, `cls_attention` {v} crops of {n}; they must agree"
            )));
        }
    }
    Ok(cues)
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
