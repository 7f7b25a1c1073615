//! `secateur check`: whether a device computes what the papers' code did, and how fast.
//!
//! Every operation is compared with its reference body, at small odd shapes and at those of LLaVA-1.5-7B and Qwen2.5-VL, in every type of
//! weights that the device keeps ([`operations`]). The built-in checkpoint must give recorded logits and answers ([`checkpoint`]).

mod cases;
mod checkpoint;
mod operations;
mod table;

use std::time::{Duration, Instant};

use anyhow::bail;
use burn::tensor::DType;
use secateur_backends::{DeviceInfo, DeviceKind, Job, Target, VlmBackend, operations::by_reference};

use self::{
    checkpoint::Answers,
    operations::{Checker, Row},
    table::Table,
};
use super::{args::CheckArgs, ceilings::measure, memory::peak_memory, print, print_json};
use crate::words::count;

/// The time after which large shapes are left out: a renderer in software takes minutes for one.
const LONG: Duration = Duration::from_secs(35);

pub(super) fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let target = args.target.choose()?;
    let table = target.run(Check { target })??;
    print(&table.text())?;
    if args.json {
        print_json(&table.json())?;
    }
    let failures = table.failures();
    if failures.is_empty() {
        return Ok(());
    }
    let names = failures.operations.join(",");
    match failures.operations.is_empty() {
        true => bail!("the built-in checkpoint does not answer as it should; please report this table"),
        false => bail!(
            "{} of {}; `--reference {names}` or SECATEUR_REFERENCE={names} runs them by their reference bodies; please report this table",
            count(failures.rows, "check failed").replace("check faileds", "checks failed"),
            table.rows.len(),
        ),
    }
}

struct Check {
    target: Target,
}

impl Job for Check {
    type Output = anyhow::Result<Table>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let began = Instant::now();
        let mut rows: Vec<Row> = Vec::new();
        let mut left_out = 0;
        let kept = [DType::F32, DType::F16, DType::BF16].map(|dtype| (dtype, B::weight_dtype(dtype, &device) == dtype));
        let types: Vec<DType> = kept.iter().filter(|(_, kept)| *kept).map(|(dtype, _)| *dtype).collect();
        let about = info(self.target);
        let largest = about.largest.unwrap_or(u64::MAX);
        for &weights in &types {
            let mut checker = Checker::<B>::new(&device, weights, largest, began + LONG);
            cases::all(&mut checker);
            rows.append(&mut checker.rows);
            left_out += checker.left_out;
        }
        let answers = types.iter().map(|&dtype| Answers::check::<B>(dtype, &device)).collect::<anyhow::Result<_>>()?;
        // In the last of the types, as layers of such weights multiply.
        let weights = types.last().copied().unwrap_or(DType::F32);
        let (activations, rounds) = (B::activation_dtype(weights), weights == DType::BF16);
        let is_slow = began.elapsed() > LONG;
        let ceilings =
            (!is_slow).then(|| measure::<B>([activations, weights], rounds, largest, &device)).transpose()?;
        Ok(Table {
            target: self.target,
            device: about,
            backend: B::name(&device),
            missing: kept.iter().filter(|(_, kept)| !kept).map(|(dtype, _)| *dtype).collect(),
            by_reference: by_reference(),
            rows,
            left_out,
            answers,
            ceilings,
            peak: peak_memory(),
            took: began.elapsed(),
        })
    }
}

/// The device's name and memory.
fn info(target: Target) -> DeviceInfo {
    let name = "its name is not told".to_owned();
    target.info().unwrap_or(DeviceInfo { name, kind: DeviceKind::Gpu, memory: None, largest: None })
}
