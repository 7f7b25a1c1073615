//! Finished runs, read from their folders.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use anyhow::bail;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::{
    eval::{CostSummary, RunConfig, read_config, read_cost, read_marks},
    files::read_json,
    pruner::{Params, methods},
    statistics::Marks,
    task::{Answer, Task, task},
    words::count,
};

/// A run with its score and answers.
pub(super) struct Stored {
    pub(super) config: RunConfig,
    pub(super) metrics: Vec<(String, Option<f64>)>,
    pub(super) notes: Vec<String>,
    pub(super) answers: Vec<Answer>,
    /// The marks of the answers; `None` for a run of an older version, or one that a server scores.
    pub(super) marks: Option<Marks>,
    /// The cost of the answers, where it is known.
    pub(super) cost: Option<CostSummary>,
}

impl Group {
    /// The run without pruning, which others are compared with.
    pub(super) fn base(&self) -> Option<&Stored> {
        self.runs.iter().find(|run| run.config.kept().is_none())
    }

    /// The benchmark and the model, with what keeps this group apart from others of the same, and the number of answers.
    pub(super) fn title(&self) -> String {
        let Self { task, model, apart, .. } = self;
        match apart.is_empty() {
            true => format!("{}, {model}", task.name()),
            false => format!("{}, {model} ({apart})", task.name()),
        }
    }

    /// The settings that distinguish this group from others of the same benchmark and model; empty for a usual run.
    pub(super) fn settings(&self) -> String {
        let RunConfig { protocol, limit, first, dtype, quantize, activations, .. } = &self.runs[0].config;
        let RunConfig { clip, grid, merge, temperature, .. } = &self.runs[0].config;
        let mut settings = vec![format!("{} rules", protocol.name())];
        settings.extend(
            limit.map(|limit| if *first { format!("first {limit} questions") } else { count(limit, "question") }),
        );
        for (name, value) in [
            ("dtype", dtype),
            ("quantize", quantize),
            ("activations", activations),
            ("clip", clip),
            ("grid", grid),
            ("merge", merge),
        ] {
            settings.extend(value.as_ref().map(|value| format!("{name} {value}")));
        }
        settings.extend((*temperature > 0.0).then(|| format!("temperature {temperature}")));
        settings.join(", ")
    }
}

impl Stored {
    /// The metric that papers report, in their unit.
    pub(super) fn score(&self, task: &dyn Task) -> Option<f64> {
        let headline = task.card().headline(self.config.protocol);
        let score = self.metrics.iter().find(|(name, _)| name == headline)?.1?;
        Some(task.card().unit.in_papers(score))
    }

    /// The standard error of the score, in the unit of papers.
    pub(super) fn error(&self, task: &dyn Task) -> Option<f64> {
        let marks = self.marks.as_ref().filter(|marks| marks.metric == task.card().headline(self.config.protocol))?;
        Some(task.card().unit.in_papers(marks.standard_error()?))
    }

    /// Where the run was timed: runs at other places, or with other numbers of threads, cannot be compared.
    pub(super) fn place(&self) -> Option<String> {
        self.cost.as_ref()?.place()
    }

    /// The parameters that a run was made with.
    pub(super) fn params(&self) -> Params {
        let given = |name: &str| self.config.params.get(name).copied();
        let default = Params::default();
        Params {
            important_ratio: given("important_ratio").unwrap_or(default.important_ratio),
            theta: given("theta"),
            fastv_layer: given("fastv_layer").map_or(default.fastv_layer, |layer| layer as usize),
            seed: self.config.seed,
        }
    }

    /// The method, with parameters that are not its defaults.
    pub(super) fn method(&self) -> String {
        let name = &self.config.method;
        // Runs that differ by their seeds are one method.
        let chosen = self.config.chosen_params().into_iter().filter(|(key, _)| *key != "seed");
        let chosen: Vec<String> = chosen.map(|(key, value)| format!("{} {value}", key.replace('_', " "))).collect();
        if chosen.is_empty() { name.clone() } else { format!("{name} ({})", chosen.join(", ")) }
    }

    /// The method, and its budget.
    pub(super) fn name(&self) -> String {
        let seed = if self.config.reads_seed() && self.config.seed > 0 {
            format!(", seed {}", self.config.seed)
        } else {
            String::new()
        };
        self.config.tokens.map_or_else(|| self.method(), |tokens| format!("{} {tokens}{seed}", self.method()))
    }
}

/// Runs of the same questions with the same weights.
pub(super) struct Group {
    pub(super) task: &'static dyn Task,
    pub(super) model: String,
    /// The settings that differ from those of other groups of the same benchmark and model; empty where there are none.
    pub(super) apart: String,
    pub(super) runs: Vec<Stored>,
}

#[derive(Deserialize)]
struct Metrics {
    #[serde(deserialize_with = "in_order")]
    metrics: Vec<(String, Option<f64>)>,
    #[serde(default)]
    notes: Vec<String>,
}

/// Reads a map's entries in the order of the file, which is the order of the benchmark's table.
fn in_order<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Option<f64>)>, D::Error> {
    struct Entries;
    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Option<f64>)>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("metrics")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }
    deserializer.deserialize_map(Entries)
}

fn read(folder: &Path) -> anyhow::Result<Stored> {
    let config = read_config(folder)?;
    if config.shard.is_some() {
        bail!("{}: a shard, which has no score; `secateur merge` joins them", folder.display());
    }
    let path = folder.join("metrics.json");
    let Metrics { metrics, notes } = read_json(&path, "not there; `secateur eval` finishes the run")?;
    let answers = Answer::read_all(&folder.join("answers.jsonl"))?;
    let marks = read_marks(folder).ok().filter(|marks| !marks.units.is_empty());
    Ok(Stored { config, metrics, notes, answers, marks, cost: read_cost(folder) })
}

/// The run folders: those that are given, and those in folders that are none, as `eval` and `sweep` write them. The tables of a sweep, which
/// `runs/*` names too, are passed over.
fn run_folders(given: &[impl AsRef<Path>]) -> anyhow::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for path in given.iter().map(AsRef::as_ref) {
        let is_table =
            path.is_file() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("sweep-"));
        if is_table {
            continue;
        }
        let mut inside: Vec<PathBuf> = match std::fs::read_dir(path) {
            Ok(entries) if !is_run(path) => {
                entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_run(path)).collect()
            }
            _ => Vec::new(),
        };
        inside.sort();
        match inside.is_empty() {
            true => folders.push(path.to_owned()),
            false => folders.append(&mut inside),
        }
    }
    Ok(folders)
}

/// Names in each group's title what keeps it apart from others of the same benchmark and model.
fn tell_apart(groups: &mut [Group]) {
    let settings: Vec<_> =
        groups.iter().map(|group| (group.task.name(), group.model.clone(), group.settings())).collect();
    for (i, group) in groups.iter_mut().enumerate() {
        let (task, model, own) = &settings[i];
        let others: Vec<_> =
            settings.iter().enumerate().filter(|(j, (t, m, _))| *j != i && t == task && m == model).collect();
        if others.is_empty() {
            continue;
        }
        group.apart = match others.iter().any(|(_, (.., other))| other == own) {
            false => own.clone(),
            // The same settings with other files.
            true => format!(
                "{own}, checkpoint {:.8}, data {:.8}",
                group.runs[0].config.checkpoint_sha256, group.runs[0].config.data_sha256
            ),
        };
    }
}

fn is_run(path: &Path) -> bool {
    path.join("config.json").is_file()
}

/// All runs, grouped by what can be compared; methods in the order of the registry, large budgets first.
pub(super) fn groups(folders: &[impl AsRef<Path>]) -> anyhow::Result<Vec<Group>> {
    let order: Vec<&str> = methods(Params::default()).iter().map(|method| method.name()).collect();
    let mut groups: Vec<Group> = Vec::new();
    for folder in run_folders(folders)? {
        let run = read(&folder)?;
        let same = |group: &&mut Group| {
            let one = &group.runs[0].config;
            let keys = |config: &RunConfig| {
                let RunConfig { benchmark, protocol, limit, first, dtype, clip, grid, merge, .. } = config;
                let sums = (config.checkpoint_sha256.clone(), config.data_sha256.clone(), config.model_name());
                let weights = [dtype, &config.quantize, &config.activations].map(Clone::clone);
                let settings = (weights, clip.clone(), grid.clone(), merge.clone(), config.temperature.to_bits());
                (benchmark.clone(), *protocol, (*limit, *first), sums, settings)
            };
            keys(one) == keys(&run.config)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.runs.push(run),
            None => {
                let (task, model) = (task(&run.config.benchmark)?, run.config.model_name());
                groups.push(Group { task, model, apart: String::new(), runs: vec![run] });
            }
        }
    }
    tell_apart(&mut groups);
    for group in &mut groups {
        let place = |method: &str| order.iter().position(|name| *name == method);
        group.runs.sort_by_key(|run| (place(&run.config.method), std::cmp::Reverse(run.config.kept())));
    }
    Ok(groups)
}
