//! A run that may be there in part: what is missing is asked and scored.

use std::path::Path;

use anyhow::anyhow;

use super::{
    answer::Answerer,
    args::{JudgeArgs, RunArgs},
    benchmark::Benchmark,
    judge,
    progress::progress,
};
use crate::{
    eval::{Batching, Looked, Run, RunConfig, RunFolder, RunStatus, look_through, status},
    task::{Answer, Report, Sample, Task, holes},
    words::count,
};

/// The work that a run folder still needs.
pub(super) enum Missing {
    /// Nothing: the folder has a score, or answers to more questions than are asked for. It stays as it is.
    Nothing,
    /// The score: the run was killed between the last answer and the score, or is to be judged anew.
    Score,
    /// Answers: some questions are not answered yet.
    Answers,
}

impl Missing {
    pub(super) fn new(there: &RunStatus, questions: usize, judge: &JudgeArgs) -> Self {
        if there.answers.len() < questions {
            Self::Answers
        } else if there.scored && judge.judge_url.is_none() || there.on_disk > questions {
            Self::Nothing
        } else {
            Self::Score
        }
    }
}

/// The result of run number `number`; missing answers and a missing score are made first. `place` says which of how many runs it is, if that is known.
pub(super) fn complete(
    answerer: &mut dyn Answerer,
    number: usize,
    place: Option<[usize; 2]>,
    benchmark: &Benchmark,
    config: &RunConfig,
    batching: Batching,
    args: &RunArgs,
) -> anyhow::Result<Report> {
    let Benchmark { task, data, samples, .. } = benchmark;
    let judge = judge_of(*task, &args.judge);
    let path = args.out.join(config.folder_name());
    let there = if args.force { RunStatus::default() } else { status(&args.out, config, samples)? };
    let score = |answers: &[Answer]| judge::score(*task, data, answers, config.protocol, &judge, &path);
    match Missing::new(&there, samples.len(), &judge) {
        Missing::Nothing => score(&there.answers),
        Missing::Score | Missing::Answers => {
            say!("{}{}", path.display(), place.map_or_else(String::new, |[i, of]| format!(" (run {i} of {of})")));
            let mut folder = RunFolder::open(&args.out, config, samples, args.force)?;
            answerer.answer(number, Run { task: *task, samples, config, batching }, &mut folder)?;
            finish(&folder, *task, data, score(folder.answers())?)
        }
    }
}

/// The judge's flags, if the benchmark has a judge.
pub(super) fn judge_of(task: &dyn Task, args: &JudgeArgs) -> JudgeArgs {
    task.judged().map(|_| args.clone()).unwrap_or_default()
}

/// Checks the images of the questions that are left, before a model is loaded for them.
pub(super) fn check_images(samples: &[Sample]) -> anyhow::Result<()> {
    let bar = progress(samples.len(), 0);
    let looked = look_through(samples, || bar.inc(1));
    bar.finish_and_clear();
    let Looked { images, turned } = looked?;
    if turned > 0 {
        let are = if turned == 1 { "is" } else { "are" };
        say!(
            "note: {turned} of {} {are} stored turned (EXIF); their pixels are taken as they are stored, as the official code does",
            count(images, "image")
        );
    }
    Ok(())
}

/// Writes the file for the benchmark's server, and the score.
pub(super) fn finish(folder: &RunFolder, task: &dyn Task, data: &Path, mut report: Report) -> anyhow::Result<Report> {
    if let Some(name) = task.card().upload {
        let whole = match folder.config().limit {
            None => true,
            Some(limit) => task.samples(data)?.len() <= limit,
        };
        let upload = match whole {
            true => task.upload(data, folder.answers()).map_err(anyhow::Error::from),
            false => Err(anyhow!("it takes answers to all questions, and --limit leaves some out")),
        };
        match upload {
            Ok(bytes) => {
                report.notes.extend(holes(task, data, folder.answers())?);
                folder.write_upload(name, Some(&bytes))?;
                report.notes.push(format!("{name} in the run folder is what the server takes"));
            }
            Err(error) => {
                folder.write_upload(name, None)?;
                report.notes.push(format!("no file for the server: {error}"));
            }
        }
    }
    folder.finish(&report)?;
    Ok(report)
}
