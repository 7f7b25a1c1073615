//! What a method costs, at LLaVA-7B's widths: 576 patches, 1 crop (LLaVA-1.5) and 5 crops (LLaVA-NeXT), by budget.
//!
//! ```sh
//! cargo bench --bench methods                  # everything, about five minutes
//! cargo bench --bench methods -- cdpruner/1    # one method, one crop
//! ```
//!
//! Timed is the choice itself, from cues that are there. What a cue costs to compute is the model's time, which
//! `secateur ask --method all` shows.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use burn::tensor::{Distribution, Tensor, activation};
use secateur::pruner::{ClsAttention, Cues, Method, Needs, Params, Relevance, Selector, methods, selector};
use secateur_backends::{Job, VlmBackend, default_backend, run};

const PATCHES: usize = 576;
const BUDGETS: [usize; 4] = [29, 64, 128, 192];

/// The widths of CLIP-L/14, its joint space, and Vicuna-7B.
const TOWER: usize = 1024;
const LAYERS: usize = 24;
const HEADS: usize = 16;
const JOINT: usize = 768;
const HIDDEN: usize = 4096;
const LLM_HEADS: usize = 32;
/// Tokens of a question with what the template puts after the image.
const TEXT: usize = 32;

fn cues<B: VlmBackend>(needs: Needs, crops: usize, device: &B::Device) -> Cues<B> {
    let noise = |width: usize| Tensor::random([crops, PATCHES, width], Distribution::Default, device);
    let attention = |layers: usize| {
        let logits = Tensor::<B, 4>::random([layers, crops, HEADS, PATCHES], Distribution::Normal(0.0, 1.0), device);
        activation::softmax(logits, 3)
    };
    Cues {
        layout: None,
        features: Some(noise(TOWER)),
        projected: needs.projected.then(|| noise(HIDDEN)),
        cls_attention: match needs.cls_attention {
            ClsAttention::None => None,
            ClsAttention::Selected => Some(attention(1)),
            ClsAttention::All => Some(attention(LAYERS)),
        },
        prompt_embeds: needs.prompt_embeds.then(|| Some(Tensor::random([TEXT, HIDDEN], Distribution::Default, device))),
        image_embeds: needs.reads_question().then(|| noise(JOINT)),
        text_embeds: needs.reads_question().then(|| Tensor::random([1, JOINT], Distribution::Default, device)),
        keys: needs.keys.then(|| noise(TOWER / HEADS)),
        fingerprint: 0,
        relevance: Relevance::Unlike,
    }
}

struct Bench<'a>(&'a mut Criterion);

impl Job for Bench<'_> {
    type Output = ();

    fn run<B: VlmBackend>(self, device: B::Device) {
        B::seed(&device, 7);
        for method in methods(Params::default()) {
            for crops in [1, 5] {
                bench::<B>(self.0, &*method, crops, &device);
            }
        }
    }
}

fn bench<B: VlmBackend>(criterion: &mut Criterion, method: &dyn Method, crops: usize, device: &B::Device) {
    let mut group = criterion.benchmark_group(format!("{}/{crops}", method.name()));
    match selector::<B>(method.name(), Params::default()).expect("every method is in the registry") {
        Selector::Before(pruner) => {
            let cues = cues::<B>(method.card().needs, crops, device);
            for budget in BUDGETS {
                group.bench_function(BenchmarkId::from_parameter(budget), |bencher| {
                    bencher.iter(|| pruner.keep(&cues, budget).expect("the cues are there"));
                });
            }
        }
        Selector::Inside(pruner) => {
            let attention = Tensor::<B, 2>::random([LLM_HEADS, crops * PATCHES], Distribution::Default, device);
            for budget in BUDGETS {
                group.bench_function(BenchmarkId::from_parameter(budget), |bencher| {
                    bencher.iter(|| pruner.keep(attention.clone(), crops * budget).expect("the budget is possible"));
                });
            }
        }
    }
    group.finish();
}

fn all(criterion: &mut Criterion) {
    run(default_backend().expect("a backend is compiled in"), Bench(criterion)).expect("its device answers");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = all
}
criterion_main!(benches);
