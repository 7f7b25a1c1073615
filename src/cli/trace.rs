//! `secateur trace`: one question through every stage, greedily, as JSON.

use std::ops::ControlFlow;

use secateur_backends::{Job, VlmBackend};
use serde::Serialize;

use super::{args::TraceArgs, ms, plan::ModelPlan, print_json};
use crate::{
    generate::{Decoding, generate},
    image::{Rgb, decode},
    model::Llava,
    pruner::pruner,
    text::{Prompt, strip, vicuna_v1},
};

pub(super) fn run(args: TraceArgs) -> anyhow::Result<()> {
    let text = vicuna_v1(&args.question, 1)?;
    let plan = ModelPlan::new(&args.model)?;
    let picture = decode(&args.image)?;
    let backend = plan.method.backend;
    let job = TraceJob { plan, picture, text, limit: args.max_new_tokens, logits: args.logits };
    let trace = secateur_backends::run(backend, job)??;
    print_json(&trace)
}

struct TraceJob {
    plan: ModelPlan,
    picture: Rgb,
    text: String,
    limit: usize,
    logits: bool,
}

#[derive(Serialize)]
struct Trace {
    prompt_ids: Vec<i64>,
    crops: usize,
    patches: usize,
    kept: Vec<Vec<usize>>,
    visual_tokens: usize,
    output_ids: Vec<u32>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
    timings_ms: Timings,
}

#[derive(Serialize)]
struct Timings {
    vision: f64,
    prune: f64,
    prefill: f64,
    decode: f64,
}

impl Job for TraceJob {
    type Output = anyhow::Result<Trace>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let method = self.plan.method.clone();
        let pruner = pruner::<B>(method.method, method.params)?;
        let model: Llava<B> = self.plan.load(&device)?;
        let prompt = Prompt::new(&self.text, model.tokenizer());
        let seen = model.see(&self.picture, &*pruner, method.tokens, &prompt, 0)?;
        let embeds = model.splice(&prompt, std::slice::from_ref(&seen));
        let answer = generate(&model, embeds, Decoding::greedy(self.limit, model.tokenizer().eos()), |_| {
            ControlFlow::Continue(())
        })?;
        Ok(Trace {
            prompt_ids: prompt.ids,
            crops: seen.keep.indices().len(),
            patches: seen.patches,
            kept: seen.keep.indices().to_vec(),
            visual_tokens: seen.keep.tokens(),
            text: strip(&model.tokenizer().decode(&answer.ids)).to_owned(),
            output_ids: answer.ids,
            logits: self.logits.then_some(answer.first_logits),
            timings_ms: Timings {
                vision: ms(seen.vision),
                prune: ms(seen.prune),
                prefill: ms(answer.prefill),
                decode: ms(answer.decode),
            },
        })
    }
}
