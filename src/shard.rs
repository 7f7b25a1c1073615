//! A run split over machines: which questions belong to which shard.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

/// Shard `index` of `count`, counted from 0.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(try_from = "Numbers")]
pub struct Shard {
    /// The number of the shard.
    pub index: usize,
    /// The number of all shards.
    pub count: usize,
}

/// The value of `--shard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardChoice {
    /// The shard of this task in the array of a cluster's scheduler.
    Auto,
    /// This one.
    One(Shard),
}

impl FromStr for ShardChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" { Ok(Self::Auto) } else { text.parse().map(Self::One) }
    }
}

/// A shard as it is written in a file, not checked.
#[derive(Deserialize)]
struct Numbers {
    index: usize,
    count: usize,
}

impl TryFrom<Numbers> for Shard {
    type Error = String;

    fn try_from(Numbers { index, count }: Numbers) -> Result<Self, String> {
        let shard = Self { index, count };
        shard.check().map(|()| shard)
    }
}

impl Shard {
    /// The questions of this shard, of `total`: neighbours stay together, and sizes differ by at most one.
    pub fn range(self, total: usize) -> Range<usize> {
        let start = |index: usize| index * total / self.count;
        start(self.index)..start(self.index + 1)
    }

    /// The shard of a task in an array of a cluster's scheduler. It is read through `variable` from SLURM's
    /// `SLURM_ARRAY_TASK_ID`, `_MIN`, `_MAX` and `_COUNT`, or from Kubernetes' `JOB_COMPLETION_INDEX` with
    /// `JOB_COMPLETIONS`, which the manifest must set. Also returns the name of the variable; `None` outside such a task.
    ///
    /// # Errors
    /// When only a part of the variables is set, or their values are no shard.
    pub fn from_scheduler(variable: impl Fn(&str) -> Option<String>) -> Result<Option<(Self, &'static str)>, String> {
        let number = |name: &str| match variable(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => {
                value.parse::<usize>().map(Some).map_err(|_| format!("{name} is `{value}`, which is no number"))
            }
        };
        let found = |index: usize, count: Option<usize>, name, other: &str| {
            let count =
                count.ok_or_else(|| format!("{name} is set but {other} is not; set it, or give --shard i/n"))?;
            let shard = Self { index, count };
            shard.check().map_err(|reason| format!("{name}: {reason}"))?;
            Ok(Some((shard, name)))
        };
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let count = number("SLURM_ARRAY_TASK_COUNT")?;
            let last = number("SLURM_ARRAY_TASK_MAX")?;
            if let (Some(last), Some(count)) = (last, count)
                && last + 1 != first + count
            {
                return Err("this SLURM array leaves numbers out; say which part this is with --shard I/N".to_owned());
            }
            return found(id.saturating_sub(first), count, "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT");
        }
        if let Some(index) = number("JOB_COMPLETION_INDEX")? {
            return found(index, number("JOB_COMPLETIONS")?, "JOB_COMPLETION_INDEX", "JOB_COMPLETIONS");
        }
        Ok(None)
    }

    fn check(self) -> Result<(), String> {
        let Self { index, count } = self;
        if index < count {
            return Ok(());
        }
        Err(format!(
            "shard {index} of {count} is not possible: shards are numbered from 0 to one less than their count"
        ))
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        let (index, count) = parts.ok_or_else(|| format!("`{text}` is no shard like 0/4, and not `auto`"))?;
        let shard = Self { index, count };
        shard.check().map(|()| shard)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} of {}", self.index, self.count)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn shards_cover_every_question_once(total in 0usize..500, count in 1usize..40) {
            let ranges: Vec<_> = (0..count).map(|index| Shard { index, count }.range(total)).collect();
            prop_assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..total).collect::<Vec<_>>());
            let sizes = || ranges.iter().map(Range::len);
            prop_assert!(sizes().max().unwrap() - sizes().min().unwrap() <= 1);
        }
    }

    #[test]
    fn shards_are_read_from_text() {
        assert_eq!("1/4".parse(), Ok(Shard { index: 1, count: 4 }));
        assert_eq!("1/4".parse(), Ok(ShardChoice::One(Shard { index: 1, count: 4 })));
        assert_eq!("auto".parse(), Ok(ShardChoice::Auto));
        for wrong in ["4/4", "1", "", "-1/4", "a/b", "0/0"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        let whole: Shard = serde_json::from_str(r#"{"index": 1, "count": 4}"#).unwrap();
        assert_eq!(whole, Shard { index: 1, count: 4 });
        assert!(serde_json::from_str::<Shard>(r#"{"index": 0, "count": 0}"#).is_err());
    }

    #[test]
    fn schedulers_are_read_from_their_variables() {
        let read = |set: &[(&str, &str)]| {
            let find = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            Shard::from_scheduler(find).map(|found| found.map(|(shard, _)| (shard.index, shard.count)))
        };
        assert_eq!(read(&[]), Ok(None));
        let slurm = [("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(read(&slurm), Ok(Some((2, 4))));
        assert_eq!(read(&[("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "2")]), Ok(Some((0, 2))));
        let holes = [&slurm[..], &[("SLURM_ARRAY_TASK_MAX", "9")]].concat();
        for wrong in [&[("JOB_COMPLETION_INDEX", "0")][..], &slurm[..1], &[("SLURM_ARRAY_TASK_ID", "x")], &holes] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }
}
