//! Plans: the typed arguments, resolved and checked before any weight is read.

use secateur_backends::{Target, VlmBackend};

use super::{
    args::{MethodArgs, ModelArgs},
    terminal::say_once,
};
use crate::{
    Error,
    model::{Checkpoint, DEMO, LoadOptions, Model, PixelChoice, TilingChoice, check_layer, open},
    pruner::{Budget, MAX_THETA, Params, method, methods},
};

/// Budgets that papers report.
pub(super) const BUDGETS: [usize; 4] = [192, 128, 64, 29];

/// A method at a budget on a backend.
#[derive(Clone, Debug)]
pub(super) struct MethodPlan {
    /// The method's name; `none` without a budget.
    pub(super) method: &'static str,
    pub(super) params: Params,
    pub(super) tokens: Option<Budget>,
    pub(super) target: Target,
    pub(super) seed: u64,
}

/// Methods, all at one budget on one backend, and the checkpoint that they run in.
pub(super) struct ModelPlan {
    pub(super) methods: Vec<MethodPlan>,
    pub(super) model: String,
    pub(super) mmproj: Option<String>,
    pub(super) checkpoint: Checkpoint,
    pub(super) options: LoadOptions,
    pub(super) pixels: PixelChoice,
}

impl MethodPlan {
    pub(super) fn new(args: &MethodArgs) -> anyhow::Result<Self> {
        if args.list() == "all" || args.list().contains(',') {
            usage!("--method takes one method here; `sweep`, `ask`, `show` and `bench` take several");
        }
        let params = params(args)?;
        let asked = method(args.list(), params)?.name();
        if args.method.is_some() && asked != "none" && args.tokens.is_none() {
            usage!(
                "--method {asked} keeps every token without a budget; give it with --tokens N, or take --method none"
            );
        }
        let tokens = if asked == "none" { None } else { args.tokens };
        if let (None, Some(ignored)) = (tokens, args.tokens) {
            say!("note: method `none` keeps every token; --tokens {ignored} is not used");
        }
        let target = args.target.choose()?;
        let method = if tokens.is_some() { asked } else { "none" };
        Ok(Self { method, params, tokens, target, seed: args.seed })
    }

    /// A plan for each name in a list with commas; `all` is every method.
    pub(super) fn several(args: &MethodArgs) -> anyhow::Result<Vec<Self>> {
        let names = names(args.list())?;
        if names.len() > 1 && args.tokens.is_none() {
            usage!("several methods are compared at one budget; give it with --tokens");
        }
        let alone = names.len() == 1;
        let plan = |name: &str| {
            // The baseline without pruning takes no budget, so beside other methods --tokens is not for it.
            let tokens = args.tokens.filter(|_| alone || name != "none");
            Self::new(&MethodArgs { method: args.method.as_ref().map(|_| name.to_owned()), tokens, ..args.clone() })
        };
        names.into_iter().map(plan).collect()
    }
}

/// The budgets of `--budgets`, and `--tokens` as one more, each once.
pub(super) fn budgets(list: &[Budget], one: Option<Budget>) -> Vec<Budget> {
    let mut budgets: Vec<Budget> = Vec::new();
    for budget in list.iter().copied().chain(one) {
        if !budgets.contains(&budget) {
            budgets.push(budget);
        }
    }
    budgets
}

/// The methods of a list with commas, each once; `all` is every method.
pub(super) fn names(list: &str) -> Result<Vec<&'static str>, Error> {
    match list {
        "all" => Ok(methods(Params::default()).iter().map(|method| method.name()).collect()),
        list => {
            let mut names = Vec::new();
            for name in list.split(',') {
                let name = method(name.trim(), Params::default())?.name();
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Ok(names)
        }
    }
}

/// Checks the methods' parameters.
pub(super) fn params(args: &MethodArgs) -> anyhow::Result<Params> {
    let usual = Params::default();
    let important_ratio = args.important_ratio.unwrap_or(usual.important_ratio);
    if !(0.0..=1.0).contains(&important_ratio) {
        usage!("--important-ratio {important_ratio} is not possible: it is a share, from 0 to 1");
    }
    if let Some(theta) = args.theta.filter(|theta| !(0.0..=MAX_THETA).contains(theta)) {
        usage!("--theta {theta} is not possible: it is a share, from 0 to {MAX_THETA}");
    }
    note_unread(args)?;
    let fastv_layer = args.fastv_layer.unwrap_or(usual.fastv_layer);
    Ok(Params { important_ratio, theta: args.theta, fastv_layer, seed: args.seed })
}

/// Names the parameters that were given and that no method of the list reads.
fn note_unread(args: &MethodArgs) -> anyhow::Result<()> {
    let names = names(args.list())?;
    let given = [
        ("--important-ratio", "vispruner", args.important_ratio.is_some()),
        ("--theta", "cdpruner", args.theta.is_some()),
        ("--fastv-layer", "fastv", args.fastv_layer.is_some()),
    ];
    for (flag, reader, _) in given.into_iter().filter(|(_, reader, given)| *given && !names.contains(reader)) {
        say_once(&format!("note: {flag} is {reader}'s; {} does not read it", names.join(", ")));
    }
    Ok(())
}

/// Whether a method needs CLIP's text side. If it is not there and all methods were asked for, the methods that need it
/// are left out.
pub(super) fn text_side<T>(
    methods: &mut Vec<T>,
    reads: impl Fn(&T) -> bool,
    args: &MethodArgs,
    look_for_it: impl FnOnce() -> Result<(), Error>,
) -> anyhow::Result<bool> {
    if !methods.iter().any(&reads) {
        return Ok(false);
    }
    // This may fetch the text side.
    match look_for_it() {
        Ok(()) => Ok(true),
        Err(error) if args.list() == "all" => {
            say!("note: methods that read CLIP's text side are left out: {error}");
            methods.retain(|method| !reads(method));
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// Refuses methods that read what the checkpoint cannot give. If all methods were asked for, they are left out.
pub(super) fn check_needs<T>(
    methods: &mut Vec<T>,
    of: impl Fn(&T) -> (&'static str, Params),
    args: &MethodArgs,
    checkpoint: &Checkpoint,
) -> anyhow::Result<()> {
    let mut checked = Vec::new();
    for plan in methods.drain(..) {
        let (name, params) = of(&plan);
        match checkpoint.check_needs(method(name, params)?.card().needs) {
            Ok(()) => checked.push(plan),
            Err(error) if args.list() == "all" => say!("note: {name} is left out: {error}"),
            Err(error) => return Err(anyhow::Error::from(error).context(format!("{name} cannot run on this model"))),
        }
    }
    *methods = checked;
    Ok(())
}

impl ModelPlan {
    /// Finds the checkpoint, which may fetch it: all other errors should be found before.
    pub(super) fn new(args: &ModelArgs, mut methods: Vec<MethodPlan>) -> anyhow::Result<Self> {
        let mut checkpoint = open(args.model(), args.weights.beside())?;
        args.weights.set_pixels(&mut checkpoint)?;
        checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
        let reads_text = |plan: &MethodPlan| {
            method(plan.method, plan.params).is_ok_and(|method| checkpoint.reads_text_side(method.card().needs))
        };
        check_needs(&mut methods, |plan| (plan.method, plan.params), &args.method, &checkpoint)?;
        let joint = text_side(&mut methods, reads_text, &args.method, || checkpoint.check_text_side())?;
        for plan in &methods {
            if let Some(budget) = plan.tokens {
                checkpoint.check_budget(budget)?;
            }
            if let Some(layer) = method(plan.method, plan.params)?.cut_layer() {
                check_layer(layer, checkpoint.decoder().num_hidden_layers)?;
            }
        }
        let tiling = TilingChoice { grid: args.grid, merge: args.merge };
        match checkpoint.check_tiling(tiling) {
            // The built-in checkpoint lies in a cache that the user did not name.
            Err(Error::Config { reason, .. }) if args.model() == DEMO => usage!("{DEMO}: {reason}"),
            checked => checked?,
        }
        let options = LoadOptions { tiling, ..args.weights.options(joint) };
        let (model, mmproj) = (args.model().to_owned(), args.weights.mmproj.clone());
        let pixels = args.weights.pixels();
        Ok(Self { methods, model, mmproj, checkpoint, options, pixels })
    }

    /// Says that the checkpoint's own settings make answers repeat themselves less.
    pub(super) fn note_penalty(&self) {
        let penalty = self.checkpoint.repetition_penalty();
        if penalty != 1.0 {
            say!(
                "note: answers have a penalty for repetition of {penalty}, as the checkpoint's generation_config.json says; trace has none unless told"
            );
        }
    }

    /// The only method, or the first.
    pub(super) fn method(&self) -> &MethodPlan {
        &self.methods[0]
    }

    /// Reads the weights.
    pub(super) fn load<B: VlmBackend>(self, device: &B::Device) -> Result<Model<B>, Error> {
        let model = self.checkpoint.load(self.options, device)?;
        model.notes().iter().for_each(|note| say!("note: {note}"));
        Ok(model)
    }
}
