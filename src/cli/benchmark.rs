//! A benchmark with its questions, which are checked before any weight is read.

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::bail;

use super::{
    args::{JudgeArgs, RunArgs},
    data_folder, judge,
    workers::is_worker,
    writable_name,
};
use crate::{
    Error,
    checksum::data_sha256,
    eval::asked,
    task::{Answer, MediaSource, Protocol, Sample, Task},
    words::count,
};

/// Refuses questions whose images are not there.
fn check_images(samples: &[Sample]) -> Result<(), Error> {
    let file = |sample: &Sample| match &sample.media {
        Some(MediaSource::File(path)) => Some(path.clone()),
        _ => None,
    };
    let missing: Vec<PathBuf> = samples.iter().filter_map(file).filter(|path| !path.is_file()).collect();
    let Some(first) = missing.first() else { return Ok(()) };
    let counts = format!("the images of {} of {} questions are missing", missing.len(), samples.len());
    let is_address = first.to_str().is_some_and(|path| path.contains("://"));
    let advice = match is_address {
        true => {
            "this one first, which the question file gives as an address: download the images, and give their names"
        }
        false => "this one first; fetch the benchmark's images",
    };
    Err(Error::data(first, format!("{counts}, {advice}")))
}

/// Says that a limited run asks some of every category.
fn note_spread(task: &dyn Task, samples: &[Sample]) {
    let categories: BTreeSet<&str> = samples.iter().map(|sample| sample.category.as_str()).collect();
    if categories.len() > 1 {
        say!(
            "note: the {} of {} are spread over {} categories; --first takes the first of the file",
            count(samples.len(), "question"),
            task.name(),
            categories.len()
        );
    }
}

/// The questions of a benchmark, up to the limit, in the order in which they are asked.
pub(super) struct Benchmark {
    pub(super) task: &'static dyn Task,
    pub(super) data: PathBuf,
    pub(super) samples: Vec<Sample>,
    /// The checksum of all questions: a run may go on with another limit.
    pub(super) data_sha256: String,
}

impl Benchmark {
    /// Looks for the benchmark's data, which may fetch them.
    pub(super) fn new(
        task: &'static dyn Task,
        data: Option<PathBuf>,
        limit: Option<usize>,
        first: bool,
    ) -> anyhow::Result<Self> {
        let data = writable_name(data_folder(task, data)?)?;
        let samples = task.samples(&data)?;
        let data_sha256 = data_sha256(&samples);
        if samples.is_empty() {
            bail!("{}: there is no question in the benchmark's files", data.display());
        }
        let in_order: Vec<_> = samples.iter().map(|sample| sample.question_id.clone()).collect();
        let samples = asked(task, samples, limit, first);
        let moved = samples.iter().zip(&in_order).any(|(sample, id)| sample.question_id != *id);
        if moved && !is_worker() {
            note_spread(task, &samples);
        }
        check_images(&samples)?;
        Ok(Self { task, data, samples, data_sha256 })
    }

    /// Finds errors that would stop a run only at its end, after a night of answers: missing labels, unknown rules.
    pub(super) fn check(&self, run: &RunArgs, judge: &JudgeArgs) -> anyhow::Result<()> {
        let blank: Vec<Answer> = self.samples.iter().map(|sample| Answer::new(sample, String::new(), "")).collect();
        judge::check(self.task, &self.data, &blank, run.protocol, judge)?;
        if run.limit.is_none() && run.protocol == Protocol::Llava {
            self.task.upload(&self.data, &blank)?;
        }
        Ok(())
    }
}
