//! `secateur merge`: the shards of a run, joined and scored.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::{args::MergeArgs, complete::finish, judge, print, print_json, writable_name};
use crate::{
    checksum::data_sha256,
    eval::{RunConfig, RunFolder, RunStatus, read_config, status, status_in},
    shard::Shard,
    task::{Answer, Sample, task},
};

pub(super) fn run(args: &MergeArgs) -> anyhow::Result<()> {
    let shards = args.shards.iter().map(|folder| part(folder)).collect::<anyhow::Result<Vec<_>>>()?;
    let shards = in_order(shards)?;
    let first = &shards[0].config;
    let data = writable_name(args.data.as_ref().map_or_else(|| Ok(first.data.clone()), std::path::absolute)?)?;
    let whole = RunConfig { shard: None, protocol: args.protocol.unwrap_or(first.protocol), data, ..first.clone() };
    let task = task(&whole.benchmark)?;
    let found = task.samples(&whole.data);
    let samples = match &args.data {
        Some(_) => found?,
        None => found.context("the shards' questions are not there any more; --data names where they are now")?,
    };
    if !whole.data_sha256.is_empty() && data_sha256(&samples) != whole.data_sha256 {
        bail!("{}: not the questions that the shards had; --data names another folder", whole.data.display());
    }
    let samples = whole.asked(task, samples);
    let mut answers = Vec::new();
    for part in &shards {
        answers.extend(part.answers(&samples)?);
    }
    let out = match &args.out {
        Some(out) => out.clone(),
        None => shards[0].folder.parent().map(Path::to_owned).unwrap_or_default(),
    };
    judge::check(task, &whole.data, &answers, whole.protocol, &args.judge)?;
    let there = if args.force { RunStatus::default() } else { status(&out, &whole, &samples)? };
    if !answers.starts_with(&there.answers) {
        let path = out.join(whole.folder_name());
        bail!("{}: there are other answers here already; --force throws them away", path.display());
    }
    let mut folder = RunFolder::open(&out, &whole, &samples, args.force)?;
    if folder.answered() == 0 {
        for part in &shards {
            folder.take_over_costs(&part.folder, part.shard.range(samples.len()).start)?;
        }
    }
    for (i, answer) in answers.into_iter().enumerate() {
        if !folder.has(i) {
            folder.append(i, answer)?;
        }
    }
    let report = judge::score(task, &whole.data, folder.answers(), whole.protocol, &args.judge, folder.path())?;
    let report = finish(&folder, task, &whole.data, report)?;
    say!("{}", folder.path().display());
    print(&report.table(Some(&whole.heading())))?;
    if args.json {
        print_json(&report)?;
    }
    Ok(())
}

/// One shard's folder.
struct Part {
    folder: PathBuf,
    config: RunConfig,
    shard: Shard,
}

fn part(folder: &Path) -> anyhow::Result<Part> {
    let folder = std::path::absolute(folder)?;
    let config = read_config(&folder)?;
    let shard = config.shard.with_context(|| format!("{}: a whole run, no shard of one", folder.display()))?;
    Ok(Part { folder, config, shard })
}

impl Part {
    /// The answers of the shard, which must be to all of its questions.
    fn answers(&self, samples: &[Sample]) -> anyhow::Result<Vec<Answer>> {
        let own = &samples[self.shard.range(samples.len())];
        let found = status_in(&self.folder, &self.config, own)?.answers;
        if found.len() < own.len() {
            let counts = format!("{} of {} questions are answered", found.len(), own.len());
            bail!("{}: {counts}; run this shard again, it goes on where it stopped", self.folder.display());
        }
        Ok(found)
    }
}

/// The largest number of missing shards that an error names.
const NAMED: usize = 16;

/// The shards by number. None may be missing or there twice, and all must be of one run.
fn in_order(mut parts: Vec<Part>) -> anyhow::Result<Vec<Part>> {
    parts.sort_by_key(|part| part.shard.index);
    let count = parts[0].shard.count;
    for pair in parts.windows(2) {
        let [a, b] = pair else { continue };
        let other = RunConfig { shard: a.config.shard, ..b.config.clone() };
        let sums = |config: &RunConfig| {
            [config.checkpoint_sha256.clone(), config.clip_sha256.clone(), config.data_sha256.clone()]
        };
        let same = other.gives_answers_of(&a.config) && sums(&other) == sums(&a.config);
        if !same || other.limit != a.config.limit || other.first != a.config.first || b.shard.count != count {
            bail!("{} and {} are not shards of one run", a.folder.display(), b.folder.display());
        }
        if a.shard == b.shard {
            bail!("shard {} is there twice: {} and {}", a.shard, a.folder.display(), b.folder.display());
        }
    }
    let there: Vec<usize> = parts.iter().map(|part| part.shard.index).collect();
    let missing: Vec<String> = (0..count).filter(|i| !there.contains(i)).take(NAMED).map(|i| i.to_string()).collect();
    if !missing.is_empty() {
        bail!("shard {} of {count} is missing", missing.join(", "));
    }
    Ok(parts)
}
