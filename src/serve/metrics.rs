//! Counters and times for Prometheus.

use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder, core::Collector,
};

use super::api::Usage;

/// The bounds of times in seconds: a GPU's milliseconds and a CPU's minutes.
const BOUNDS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0];

/// The metrics of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    queue: IntGauge,
    pub(super) running: IntGauge,
    pub(super) first_token: Histogram,
    per_token: Histogram,
    prompt: IntCounter,
    cached: IntCounter,
    generated: IntCounter,
    visual: IntCounter,
    unpruned: IntCounter,
    pub(super) encoder_runs: IntCounter,
    pub(super) encoder_hits: IntCounter,
}

/// Registers a metric and returns it. Names are constants, each used once, so that neither step can fail.
fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let metric = made.expect("the name of a metric is valid");
    registry.register(Box::new(metric.clone())).expect("the name of a metric is used once");
    metric
}

impl Metrics {
    pub(super) fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| registered(&registry, IntCounter::new(format!("secateur_{name}"), help));
        let gauge = |name: &str, help: &str| registered(&registry, IntGauge::new(format!("secateur_{name}"), help));
        let histogram = |name: &str, help: &str| {
            let options = HistogramOpts::new(format!("secateur_{name}"), help).buckets(BOUNDS.to_vec());
            registered(&registry, Histogram::with_opts(options))
        };
        let requests = Opts::new("secateur_requests_total", "Requests for completions by the status of the answer");
        Self {
            requests: registered(&registry, IntCounterVec::new(requests, &["status"])),
            queue: gauge("queue_length", "Requests that wait for the model"),
            running: gauge("running_requests", "Requests that the model answers"),
            first_token: histogram("time_to_first_token_seconds", "Time from a request's arrival to its first token"),
            per_token: histogram("time_per_token_seconds", "Mean time of a request's tokens after the first"),
            prompt: counter("prompt_tokens_total", "Tokens of prompts, visual tokens included"),
            cached: counter("cached_prompt_tokens_total", "Tokens of prompts that were taken over from prompts before"),
            generated: counter("generated_tokens_total", "Tokens of answers"),
            visual: counter("visual_tokens_total", "Visual tokens that the language model read"),
            unpruned: counter("visual_tokens_unpruned_total", "Visual tokens that it would have read without pruning"),
            encoder_runs: counter("encoder_runs_total", "Images that the vision tower encoded"),
            encoder_hits: counter("encoder_cache_hits_total", "Images whose encoding was kept from a request before"),
            registry,
        }
    }

    /// Counts a request by the status of its answer.
    pub(super) fn answered(&self, status: u16) {
        self.requests.with_label_values(&[&status.to_string()]).inc();
    }

    /// Counts the tokens of an answer that took `decode` after its first token.
    pub(super) fn used(&self, usage: &Usage, decode: Duration) {
        let counts = &usage.prompt_tokens_details;
        for (counter, count) in [
            (&self.prompt, usage.prompt_tokens),
            (&self.cached, counts.cached_tokens),
            (&self.generated, usage.completion_tokens),
            (&self.visual, counts.image_tokens),
            (&self.unpruned, counts.image_tokens_unpruned),
        ] {
            counter.inc_by(count as u64);
        }
        if usage.completion_tokens > 1 {
            self.per_token.observe(decode.as_secs_f64() / (usage.completion_tokens - 1) as f64);
        }
    }

    /// The metrics as Prometheus reads them.
    pub(super) fn text(&self, waiting: usize) -> String {
        self.queue.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}
