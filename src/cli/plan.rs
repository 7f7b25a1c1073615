//! Typed arguments, resolved and checked before any weight is read.

use burn::tensor::DType;
use secateur_backends::{VlmBackend, default_backend, find};

use super::args::{MethodArgs, ModelArgs};
use crate::{
    Error,
    model::{Llava, Opened, open},
    pruner::{Params, check_budget, method},
};

/// Which method at which budget on which backend.
#[derive(Clone, Debug)]
pub(super) struct MethodPlan {
    /// The method's name; `none` without a budget.
    pub(super) method: &'static str,
    pub(super) params: Params,
    pub(super) tokens: Option<usize>,
    pub(super) backend: &'static str,
    pub(super) seed: u64,
}

/// A method and the checkpoint that it runs in.
pub(super) struct ModelPlan {
    pub(super) method: MethodPlan,
    pub(super) model: String,
    pub(super) opened: Opened,
    pub(super) dtype: Option<DType>,
}

impl MethodPlan {
    pub(super) fn new(args: &MethodArgs) -> anyhow::Result<Self> {
        if !(0.0..=1.0).contains(&args.important_ratio) {
            anyhow::bail!("--important-ratio {} is not possible: it is a share, from 0 to 1", args.important_ratio);
        }
        let params = Params { important_ratio: args.important_ratio };
        let asked = method(&args.method, params)?.name();
        if args.tokens == Some(0) {
            anyhow::bail!("a budget of 0 tokens is not possible: --tokens takes 1 up to the patches of one crop");
        }
        let tokens = if asked == "none" { None } else { args.tokens };
        if let (None, Some(ignored)) = (tokens, args.tokens) {
            eprintln!("note: method `none` keeps every token; --tokens {ignored} is not used");
        }
        let backend = match &args.backend {
            Some(name) => find(name)?.name,
            None => default_backend()?,
        };
        let method = if tokens.is_some() { asked } else { "none" };
        Ok(Self { method, params, tokens, backend, seed: args.seed })
    }
}

impl ModelPlan {
    pub(super) fn new(args: &ModelArgs) -> anyhow::Result<Self> {
        let method = MethodPlan::new(&args.method)?;
        let opened = open(&args.model)?;
        if let Some(budget) = method.tokens {
            check_budget(budget, opened.config.vision.patches())?;
        }
        Ok(Self { method, model: args.model.clone(), opened, dtype: args.dtype.map(DType::from) })
    }

    /// Reads the weights.
    pub(super) fn load<B: VlmBackend>(self, device: &B::Device) -> Result<Llava<B>, Error> {
        self.opened.load(self.dtype, device)
    }
}
