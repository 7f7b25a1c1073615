//! `secateur trace`: one question through every stage, greedily, as JSON.

use std::path::{Path, PathBuf};

use secateur_backends::{Job, VlmBackend};
use serde::Serialize;

use super::{
    args::TraceArgs,
    check_there,
    cues::write_cues,
    ms, note_turned,
    plan::{MethodPlan, ModelPlan},
    print_json,
};
use crate::{
    Error,
    engine::{Decoding, answer, go_on, kept},
    image::decode,
    model::{Model, VisualTokens},
    pruner::{Needs, Selector, selector},
    text::{Prompt, clip_question, strip},
    video::{Media, Video},
};

pub(super) fn run(args: TraceArgs) -> anyhow::Result<()> {
    for path in args.image.iter().chain(&args.video) {
        check_there(path)?;
    }
    let plan = ModelPlan::new(&args.model, vec![MethodPlan::new(&args.model.method)?])?;
    let checkpoint = &plan.checkpoint;
    let media = match (&args.video, &args.image) {
        (Some(path), _) => {
            let frames = checkpoint.frames().ok_or_else(|| Error::NoVideo { path: path.clone() })?;
            Media::Video(Video::read(path, frames)?)
        }
        // Clap makes sure that an image or a video is given.
        (None, path) => {
            let path = path.as_deref().unwrap_or(Path::new(""));
            note_turned(path);
            decode(path)?.into()
        }
    };
    let text = checkpoint.chat().own.render(&args.question, &[media.placeholders(checkpoint.frames())])?;
    let target = plan.method().target;
    let question = args.clip_text.unwrap_or_else(|| clip_question(&args.question));
    let (limit, logits, cues) = (args.max_new_tokens, args.logits, args.cues);
    let job = TraceJob { plan, media, text, question, limit, logits, cues };
    let trace = target.run(job)??;
    print_json(&trace)
}

struct TraceJob {
    plan: ModelPlan,
    media: Media,
    text: String,
    question: String,
    limit: usize,
    logits: bool,
    /// Where the cues go.
    cues: Option<PathBuf>,
}

#[derive(Serialize)]
struct Trace {
    prompt_ids: Vec<i64>,
    crops: usize,
    patches: usize,
    kept: Vec<Vec<usize>>,
    visual_tokens: usize,
    /// The numbers of a video's frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    frames: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anyres: Option<AnyRes>,
    output_ids: Vec<u32>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f32>>,
    timings_ms: Timings,
}

/// How a LLaVA-NeXT image was cut into crops and joined into one sequence.
#[derive(Serialize)]
struct AnyRes {
    columns: usize,
    rows: usize,
    merge: &'static str,
}

impl AnyRes {
    fn of<B: VlmBackend>(seen: &VisualTokens<B>) -> Option<Self> {
        seen.tiles.map(|tiles| Self { columns: tiles.columns, rows: tiles.rows, merge: seen.merge.name() })
    }
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
        let method = self.plan.method().clone();
        let selector = selector::<B>(method.method, method.params)?;
        let model: Model<B> = self.plan.load(&device)?;
        let prompt = Prompt::new(&self.text, &self.question, model.tokenizer())?;
        if let Some(path) = &self.cues {
            let Selector::Before(pruner) = &selector else {
                usage!("--cues: {} reads the language model's attention, and no cues of the tower", method.method);
            };
            let card = pruner.card();
            // With them `prune --out` makes the tokens that stay.
            let needs = Needs { projected: true, ..card.needs };
            let encoded = model.encode_media(&self.media, card.tiling, needs)?;
            write_cues(path, model.cues(&encoded, needs, &prompt, 0)?)?;
        }
        let decoding = Decoding::greedy(self.limit);
        let (seen, answer) =
            answer(&model, std::slice::from_ref(&self.media), &prompt, &selector, method.tokens, decoding, go_on)?;
        let (kept, visual_tokens) = kept(&seen, &answer);
        let seen = &seen[0];
        Ok(Trace {
            prompt_ids: prompt.ids,
            crops: kept.len(),
            patches: seen.grid.tokens(),
            kept,
            visual_tokens,
            frames: match self.media {
                Media::Image(_) => None,
                Media::Video(video) => Some(video.numbers),
            },
            anyres: AnyRes::of(seen),
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
