//! The table that `check` prints.

use std::{fmt::Write, time::Duration};

use burn::tensor::DType;
use secateur_backends::{DeviceInfo, Target, operations::Operation};
use serde_json::{Value, json};

use super::{checkpoint::Answers, operations::Row};
use crate::cli::{ceilings::Ceilings, with_kernels};

/// All that was found.
pub(super) struct Table {
    pub(super) target: Target,
    pub(super) device: DeviceInfo,
    /// The backend's own name, with its compiler.
    pub(super) backend: String,
    /// The types of weights that the device does not keep.
    pub(super) missing: Vec<DType>,
    pub(super) by_reference: Vec<Operation>,
    pub(super) rows: Vec<Row>,
    /// The number of large shapes that were left out.
    pub(super) left_out: usize,
    pub(super) answers: Vec<Answers>,
    pub(super) ceilings: Option<Ceilings>,
    /// The peak memory of the process in bytes.
    pub(super) peak: Option<u64>,
    pub(super) took: Duration,
}

/// The failed checks.
pub(super) struct Failures {
    /// The number of rows.
    pub(super) rows: usize,
    /// Their operations, each once.
    pub(super) operations: Vec<&'static str>,
    /// Whether the built-in checkpoint's answers were wrong.
    answers: bool,
}

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0 && !self.answers
    }
}

impl Table {
    pub(super) fn failures(&self) -> Failures {
        let failed = || self.rows.iter().filter(|row| !row.is_right());
        let mut operations: Vec<&str> = failed().map(|row| row.operation.name()).collect();
        operations.dedup();
        operations.sort_unstable();
        operations.dedup();
        let answers = self.answers.iter().any(|answers| !answers.is_right());
        Failures { rows: failed().count(), operations, answers }
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        let DeviceInfo { name, kind, memory, .. } = &self.device;
        let memory = memory.map_or_else(String::new, |bytes| format!(", {}", gib(bytes)));
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "secateur {}, {}, {}",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        let _ = writeln!(out, "{}, {}: {name}{memory}\n", self.backend, kind.name());
        let _ = writeln!(
            out,
            "{:<16} {:<52} {:<8} {:>9} {:>9} {:>10}",
            "operation", "shape", "weights", "error", "allowed", "ms"
        );
        for row in &self.rows {
            let error = row.error.as_ref().map_or("–".to_owned(), |error| format!("{error:.1e}"));
            let by = if self.by_reference.contains(&row.operation) { " (reference body)" } else { "" };
            let verdict = match &row.error {
                _ if row.is_right() => by.to_owned(),
                Ok(_) => format!("  WRONG{by}"),
                Err(reason) => format!("  FAILED: {reason}"),
            };
            let _ = writeln!(
                out,
                "{:<16} {:<52} {:<8} {error:>9} {:>9.1e} {:>10.2}{verdict}",
                row.operation.name(),
                row.shape,
                name_of(row.weights),
                row.allowed,
                row.time,
            );
        }
        if self.left_out > 0 {
            let _ = writeln!(
                out,
                "{} large shapes were left out: this device is too slow for them, or holds no tensors so large",
                self.left_out
            );
        }
        for dtype in &self.missing {
            let _ = writeln!(out, "weights in {} become f32 on this device", name_of(*dtype));
        }
        let _ = writeln!(out);
        for Answers { weights, same, all, error } in &self.answers {
            let _ = writeln!(
                out,
                "built-in checkpoint, weights in {}: {same} of {all} answers as recorded, first logits within {error:.1e}",
                name_of(*weights)
            );
        }
        if let Some(Ceilings { weights, side, product, copy }) = &self.ceilings {
            let _ = writeln!(
                out,
                "product of {side}³ with weights in {weights}: {:.2} TFLOP/s; copy: {:.0} GB/s",
                product / 1e12,
                copy / 1e9
            );
        }
        let _ = writeln!(
            out,
            "first runs, in which kernels are compiled, took {:.1} s longer than later ones",
            self.compiling() / 1e3
        );
        if let Some(peak) = self.peak {
            let _ = writeln!(out, "peak memory of the process: {}", gib(peak));
        }
        let failures = self.failures();
        let all = self.rows.len() + self.answers.len();
        let wrong = failures.rows + self.answers.iter().filter(|answers| !answers.is_right()).count();
        let _ = write!(out, "{} of {all} checks passed in {:.0} s", all - wrong, self.took.as_secs_f64());
        out
    }

    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "operation": row.operation.name(), "shape": row.shape, "weights": name_of(row.weights), "error": row.error.as_ref().ok(),
                "failure": row.error.as_ref().err(), "allowed": row.allowed, "ms": row.time, "first_ms": row.first, "ok": row.is_right(),
                "by_reference": self.by_reference.contains(&row.operation),
            })
        };
        let answers = |answers: &Answers| {
            json!({
                "weights": name_of(answers.weights), "same": answers.same, "of": answers.all, "logits_error": answers.error,
                "ok": answers.is_right(),
            })
        };
        let value = json!({
            "version": env!("CARGO_PKG_VERSION"), "os": std::env::consts::OS, "arch": std::env::consts::ARCH,
            "backend": self.target.backend, "name": self.device.name, "kind": self.device.kind.name(), "memory_bytes": self.device.memory,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(), "left_out": self.left_out,
            "checkpoint": self.answers.iter().map(answers).collect::<Vec<_>>(),
            "product_flops_per_s": self.ceilings.map(|ceilings| ceilings.product),
            "copy_bytes_per_s": self.ceilings.map(|ceilings| ceilings.copy),
            "compile_ms": self.compiling(), "peak_bytes": self.peak, "seconds": self.took.as_secs_f64(), "ok": self.failures().is_empty(),
        });
        with_kernels(value, self.target.backend)
    }

    /// Milliseconds that first runs took longer.
    fn compiling(&self) -> f64 {
        self.rows.iter().map(|row| row.first).filter(|first| first.is_finite()).sum()
    }
}

fn name_of(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}
