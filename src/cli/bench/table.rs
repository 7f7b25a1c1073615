//! The table of `secateur bench`.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

use crate::cli::ceilings::Ceilings;
use crate::{
    cli::{median, ms, with_kernels},
    cost::FORMULA,
};

/// A method at a budget.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) tokens: usize,
    /// The number of visual tokens in the decoder's first layer.
    pub(super) visual: usize,
    pub(super) flops: u64,
    pub(super) kv_bytes: u64,
    /// The operations of the whole prompt's prefill.
    pub(super) prompt_work: u64,
    /// The bytes that a step of decoding reads: weights, keys and values.
    pub(super) step_bytes: u64,
    pub(super) times: Vec<Times>,
}

/// The times of one repeat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    pub(super) vision: Duration,
    pub(super) prune: Duration,
    pub(super) project: Duration,
    pub(super) prefill: Duration,
    /// The time of a token after the first.
    pub(super) decode: Duration,
}

impl Times {
    fn first_token(&self) -> Duration {
        self.vision + self.prune + self.project + self.prefill
    }
}

impl Row {
    /// The median over the repeats, in milliseconds.
    fn median(&self, of: fn(&Times) -> Duration) -> f64 {
        median(self.times.iter().map(of)).map_or(f64::NAN, ms)
    }

    /// Half of the way from the fastest to the slowest time to the first token, as a share of the median.
    fn spread(&self) -> f64 {
        let times = || self.times.iter().map(Times::first_token);
        let reach = times().max().zip(times().min()).map_or(0.0, |(slowest, fastest)| ms(slowest - fastest));
        reach / 2.0 / self.median(Times::first_token)
    }

    /// The shares of the ceilings that the prefill's operations and the decoding's bytes a second reach.
    fn shares(&self, ceilings: &Ceilings) -> (f64, f64) {
        let rate = |amount: u64, of| amount as f64 / (self.median(of) / 1e3);
        (
            rate(self.prompt_work, |times| times.prefill) / ceilings.product,
            rate(self.step_bytes, |times| times.decode) / ceilings.copy,
        )
    }
}

/// A measurement; its first row is without pruning.
pub(super) struct Table {
    pub(super) model: String,
    pub(super) backend: &'static str,
    /// The type of the weights.
    pub(super) weights: String,
    /// The type in which the decoder computes.
    pub(super) activations: String,
    pub(super) text: usize,
    pub(super) new_tokens: usize,
    pub(super) repeats: usize,
    pub(super) peak_bytes: Option<u64>,
    pub(super) ceilings: Option<Ceilings>,
    pub(super) rows: Vec<Row>,
}

impl Table {
    /// The table as text for people.
    pub(super) fn text(&self) -> String {
        let Self { model, backend, weights, activations, text, new_tokens, repeats, .. } = self;
        let mut out = format!(
            "{model}; {backend}, weights in {weights}, activations in {activations}; {text} tokens of text, {new_tokens} new ones\n\
             medians of {repeats} after a warm-up, in milliseconds\n\n"
        );
        let most = self.rows.iter().map(|row| row.flops).max().unwrap_or(0);
        let (unit, scale) = if most > 100_000_000_000 { ("TFLOP", 1e12) } else { ("GFLOP", 1e9) };
        let width = self.rows.iter().map(|row| row.method.len()).max().unwrap_or(0).max(6);
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<width$} {:>6} {:>6} {:>9} {:>8} {:>8} {:>9} {:>11} {:>7} {:>6} {:>9} {:>9} {:>8}",
            "method",
            "tokens",
            "visual",
            "vision",
            "prune",
            "project",
            "prefill",
            "first token",
            "faster",
            "spread",
            "tokens/s",
            unit,
            "KV MiB"
        );
        let slowest = self.rows.first().map_or(f64::NAN, |row| row.median(Times::first_token));
        for row in &self.rows {
            let first = row.median(Times::first_token);
            let _ = writeln!(
                out,
                "{:<width$} {:>6} {:>6} {:>9.1} {:>8.2} {:>8.1} {:>9.1} {:>11.1} {:>6.2}× {:>4.0} % {:>9.2} {:>9.3} {:>8.1}",
                row.method,
                row.tokens,
                row.visual,
                row.median(|times| times.vision),
                row.median(|times| times.prune),
                row.median(|times| times.project),
                row.median(|times| times.prefill),
                first,
                slowest / first,
                100.0 * row.spread(),
                1e3 / row.median(|times| times.decode),
                row.flops as f64 / scale,
                row.kv_bytes as f64 / f64::from(1 << 20),
            );
        }
        let _ = write!(
            out,
            "\nvision: preprocessing, tower, what the method reads; project: the kept patches; spread: half of slowest minus \
             fastest\nFLOP of the visual tokens' prefill: {FORMULA}"
        );
        if let Some(ceilings) = &self.ceilings {
            let _ = write!(out, "\n{}", self.beside(ceilings));
        }
        if let Some(peak) = self.peak_bytes {
            let _ = write!(out, "\npeak resident memory of the process: {:.2} GiB", peak as f64 / f64::from(1 << 30));
        }
        out
    }

    /// The best rates of the device, and the share of them that every row reaches.
    fn beside(&self, ceilings: &Ceilings) -> String {
        let Ceilings { weights, side, product, copy } = ceilings;
        let mut out = format!(
            "ceilings: a product of {side}³ as layers multiply, {} by {}, {:.2} TFLOP/s; a copy {:.0} GB/s (read and written)\n\
             their shares that prefill (what the whole prompt takes; the last layer is computed for one token) and decoding \
             (bytes of weights, keys and values) reach:\n",
            self.activations,
            weights,
            product / 1e12,
            copy / 1e9
        );
        for row in &self.rows {
            let (prefill, decode) = row.shares(ceilings);
            let _ = writeln!(
                out,
                "  {} at {}: prefill {:.0} %, decoding {:.0} %",
                row.method,
                row.tokens,
                100.0 * prefill,
                100.0 * decode
            );
        }
        out.truncate(out.trim_end().len());
        out
    }

    /// The table as JSON for scripts.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            let shares = self.ceilings.as_ref().map(|ceilings| row.shares(ceilings));
            json!({
                "method": row.method,
                "tokens": row.tokens,
                "visual_tokens": row.visual,
                "ttft_ms": row.median(Times::first_token),
                "ttft_spread": row.spread(),
                "vision_ms": row.median(|times| times.vision),
                "prune_ms": row.median(|times| times.prune),
                "project_ms": row.median(|times| times.project),
                "prefill_ms": row.median(|times| times.prefill),
                "decode_ms_per_token": row.median(|times| times.decode),
                "flops": row.flops,
                "kv_bytes": row.kv_bytes,
                "prefill_share": shares.map(|(prefill, _)| prefill),
                "decode_share": shares.map(|(_, decode)| decode),
            })
        };
        let value = json!({
            "model": self.model,
            "backend": self.backend,
            "weights": self.weights,
            "activations": self.activations,
            "prompt_tokens": self.text,
            "new_tokens": self.new_tokens,
            "repeats": self.repeats,
            "peak_bytes": self.peak_bytes,
            "product_flops_per_s": self.ceilings.map(|ceilings| ceilings.product),
            "copy_bytes_per_s": self.ceilings.map(|ceilings| ceilings.copy),
            "flops_and_kv_bytes_of": "the visual tokens' prefill",
            "flops_formula": FORMULA,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        });
        with_kernels(value, self.backend)
    }
}
