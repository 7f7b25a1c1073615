//! How many workers there are, and on which devices.

use std::{num::NonZero, str::FromStr, thread::available_parallelism};

use anyhow::bail;
use clap::Args as ClapArgs;
use secateur_backends::{DeviceKind, Target, devices};

/// Several devices, or several processes on one.
#[derive(Clone, Debug, Default, ClapArgs)]
#[command(next_help_heading = "Device")]
pub(in crate::cli) struct WorkerArgs {
    /// Devices that share the questions, `all` or numbers with commas: a process for each, one run folder
    #[arg(long, value_name = "all|N,…", conflicts_with = "device")]
    devices: Option<Devices>,
    /// Processes on each device; on CPUs they split the cores
    #[arg(long, value_name = "N")]
    workers: Option<NonZero<usize>>,
}

/// The value of `--devices`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Devices {
    All,
    Some(Vec<usize>),
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let wrong =
            || format!("`{text}`: expected `all`, or numbers with commas as in 0,1; see `secateur list devices`");
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        let numbers = numbers.map_err(|_| wrong())?;
        match (1..numbers.len()).find(|&i| numbers[..i].contains(&numbers[i])) {
            Some(i) => {
                Err(format!("device {} is there twice; --workers 2 runs two processes on each device", numbers[i]))
            }
            None => Ok(Self::Some(numbers)),
        }
    }
}

/// A worker that is to be started.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seat {
    /// The device; `None` is the one that the backend takes by itself.
    pub(super) device: Option<usize>,
    /// The threads of a worker on the CPU.
    pub(super) threads: Option<usize>,
}

impl WorkerArgs {
    /// Whether the flags ask for workers.
    pub(in crate::cli) fn are_asked(&self) -> bool {
        self.devices.is_some() || self.workers.is_some()
    }

    /// The workers; `None` where this process is to answer by itself.
    ///
    /// # Errors
    /// When a device is not there.
    pub(super) fn seats(&self, target: Target) -> anyhow::Result<Option<Vec<Seat>>> {
        if !self.are_asked() {
            return Ok(None);
        }
        let there = devices(target.backend)?;
        let chosen: Vec<Option<usize>> = match &self.devices {
            None => vec![target.device],
            Some(Devices::All) => {
                // A renderer in software beside GPUs would hold them up.
                let only_cpus = there.iter().all(|device| device.kind == DeviceKind::Cpu);
                let is_used = |&i: &usize| only_cpus || there[i].kind != DeviceKind::Cpu;
                (0..there.len()).filter(is_used).map(Some).collect()
            }
            Some(Devices::Some(numbers)) => {
                if let Some(number) = numbers.iter().find(|&&number| number >= there.len()) {
                    let (backend, count) = (target.backend, there.len());
                    bail!(
                        "backend `{backend}` has no device {number}: it has {count}, numbered from 0; see `secateur list devices`"
                    );
                }
                numbers.iter().copied().map(Some).collect()
            }
        };
        let each = self.workers.map_or(1, NonZero::get);
        let is_cpu = matches!(target.backend, "flex" | "ndarray");
        let cores =
            std::env::var("RAYON_NUM_THREADS").ok().and_then(|count| count.parse().ok()).filter(|&count| count > 0);
        let cores: usize = cores.or_else(|| available_parallelism().ok().map(NonZero::get)).unwrap_or(1);
        let threads = is_cpu.then(|| (cores / each).max(1));
        // Neighbours are on different devices, so that the first questions go to all of them.
        let seats = (0..each).flat_map(|_| &chosen).map(|&device| Seat { device, threads });
        Ok(Some(seats.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_all_or_numbers() {
        assert_eq!("all".parse(), Ok(Devices::All));
        assert_eq!("2, 0".parse(), Ok(Devices::Some(vec![2, 0])));
        for wrong in ["", "a", "0,,1", "-1", "0,1,0"] {
            assert!(wrong.parse::<Devices>().is_err(), "{wrong}");
        }
    }
}
