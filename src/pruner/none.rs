//! No pruning: every patch is kept. The baseline row of every table.

use burn::tensor::backend::Backend;

use super::{Cues, Keep, Method, Needs, Pruner, check_budget};
use crate::Error;

/// The baseline.
#[derive(Clone, Copy, Debug)]
pub struct NoPruning;

impl Method for NoPruning {
    fn name(&self) -> &'static str {
        "none"
    }

    fn idea(&self) -> &'static str {
        "keeps every token: the baseline"
    }

    fn paper(&self) -> &'static str {
        ""
    }

    fn needs(&self) -> Needs {
        Needs::default()
    }
}

impl<B: Backend> Pruner<B> for NoPruning {
    /// Keeps all patches, whatever the budget, which must still be a possible one.
    fn keep(&self, cues: &Cues<B>, budget: usize) -> Result<Keep, Error> {
        let shape = "[crops, patches, hidden]";
        let (crops, patches) = cues.grid().ok_or(Error::MissingCue { method: "none", cue: "features", shape })?;
        check_budget(budget, patches)?;
        Ok(Keep::new(vec![(0..patches).collect(); crops], patches))
    }
}
