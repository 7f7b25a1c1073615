//! `secateur trace`: one question through every stage, greedily, as JSON.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use secateur_backends::{Job, VlmBackend};
use serde::Serialize;

use super::{
    args::{MediaPath, TraceArgs},
    check_there,
    cues::{write_cues, write_tensors},
    ms, note_turned,
    plan::{MethodPlan, ModelPlan},
    print_json,
};
use crate::{
    Error,
    engine::{Decoding, Generated, answer, go_on, kept},
    image::decode,
    messages::Messages,
    model::{Model, Positions, VisualTokens},
    pruner::{Needs, NoPruning, Selector, selector},
    tensor::host,
    text::{Prompt, strip},
    video::{FrameRule, Media, Video},
};

pub(super) fn run(args: TraceArgs) -> anyhow::Result<()> {
    for path in args.media.0.iter().map(|media| &media.path).chain(&args.messages) {
        check_there(path)?;
    }
    if !(args.repetition_penalty.is_finite() && args.repetition_penalty > 0.0) {
        usage!("--repetition-penalty {} is not possible: it is above 0, and 1 for none", args.repetition_penalty);
    }
    let plan = ModelPlan::new(&args.model, vec![MethodPlan::new(&args.model.method)?])?;
    let checkpoint = &plan.checkpoint;
    let messages = match &args.messages {
        Some(path) => Messages::read(path, checkpoint.frames())?,
        None => {
            let media = args.media.0.iter().map(|media| read(media, checkpoint.frames())).collect::<Result<_, _>>()?;
            Messages::question(args.question.as_deref().unwrap_or_default(), media)
        }
    };
    let mut prompt = messages.prompt(checkpoint.chat().own, checkpoint.frames(), &checkpoint.tokenizer)?;
    if let Some(text) = args.clip_text {
        prompt.question = text;
    }
    let target = plan.method().target;
    let decoding = Decoding { repetition_penalty: args.repetition_penalty, ..Decoding::greedy(args.max_new_tokens) };
    let (media, logits, cues, embeds) = (messages.media, args.logits, args.cues, args.embeds);
    let trace = target.run(TraceJob { plan, media, prompt, decoding, logits, cues, embeds })??;
    print_json(&trace)
}

/// Reads an image as it is stored, or a video.
fn read(MediaPath { path, video }: &MediaPath, frames: Option<FrameRule>) -> Result<Media, Error> {
    if *video {
        let frames = frames.ok_or_else(|| Error::NoVideo { path: path.clone() })?;
        return Ok(Media::Video(Video::read(path, frames)?));
    }
    note_turned(path);
    Ok(decode(path)?.into())
}

struct TraceJob {
    plan: ModelPlan,
    media: Vec<Media>,
    prompt: Prompt,
    decoding: Decoding,
    logits: bool,
    /// The file that the cues go to.
    cues: Option<PathBuf>,
    /// The file that the embeddings go to.
    embeds: Option<PathBuf>,
}

#[derive(Serialize)]
struct Trace {
    prompt_ids: Vec<i64>,
    crops: usize,
    patches: usize,
    /// Rows and columns of each item, where they depend on the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    grids: Option<Vec<[usize; 2]>>,
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
    /// The position of each row of the pruned prompt, a list for each axis.
    #[serde(skip_serializing_if = "Option::is_none")]
    positions: Option<Vec<Vec<u32>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_position: Option<usize>,
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
        let Self { plan, media, prompt, decoding, logits, cues, embeds } = self;
        let method = plan.method().clone();
        let selector = selector::<B>(method.method, method.params)?;
        let model: Model<B> = plan.load(&device)?;
        if let Some(path) = &cues {
            let (Selector::Before(pruner), [media]) = (&selector, &media[..]) else {
                usage!(
                    "--cues: {} reads the language model's attention, or there are several images; one image and cues of the tower are written",
                    method.method
                );
            };
            let card = pruner.card();
            // With them `prune --out` makes the tokens that stay.
            let needs = Needs { projected: true, ..card.needs };
            let encoded = model.encode_media(media, card.tiling, needs)?;
            write_cues(path, model.cues(&encoded, needs, &prompt, 0)?)?;
        }
        if let Some(path) = &embeds {
            write_embeds(path, &model, &media, &prompt, &selector)?;
        }
        let (seen, answer) = answer(&model, &media, &prompt, &selector, method.tokens, decoding, go_on)?;
        let (kept, visual_tokens) = kept(&seen, &answer);
        let positions = logits.then(|| positions(&model, &prompt, &seen, &answer));
        let (positions, next_position) = positions.unzip();
        let whole = seen.iter().zip(&media).map(|(seen, media)| (seen.unpruned, matches!(media, Media::Video(_))));
        let items = seen
            .iter()
            .flat_map(|seen| std::iter::repeat_n([seen.grid.rows, seen.grid.columns], seen.keep.indices().len()));
        let sum = |time: fn(&VisualTokens<B>) -> Duration| ms(seen.iter().map(time).sum());
        let videos = media.iter().filter_map(|media| match media {
            Media::Image(_) => None,
            Media::Video(video) => Some(&video.numbers),
        });
        let frames: Vec<usize> = videos.flatten().copied().collect();
        Ok(Trace {
            prompt_ids: model.processor_ids(&prompt, &whole.collect::<Vec<_>>()),
            crops: kept.len(),
            patches: seen.first().map_or(0, |seen| seen.grid.tokens()),
            grids: (!model.has_fixed_grid()).then(|| items.collect()),
            kept,
            visual_tokens,
            frames: (!frames.is_empty()).then_some(frames),
            anyres: seen.first().and_then(AnyRes::of),
            text: strip(&model.tokenizer().decode(&answer.ids)).to_owned(),
            timings_ms: Timings {
                vision: sum(|seen| seen.vision),
                prune: sum(|seen| seen.prune),
                prefill: ms(answer.prefill),
                decode: ms(answer.decode),
            },
            output_ids: answer.ids,
            logits: logits.then_some(answer.first_logits),
            positions,
            next_position,
        })
    }
}

/// The positions of the pruned prompt's rows, in time, height and width, or in one row where these are the same; and the position of the first token of
/// the answer.
fn positions<B: VlmBackend>(
    model: &Model<B>,
    prompt: &Prompt,
    seen: &[VisualTokens<B>],
    answer: &Generated,
) -> (Vec<Vec<u32>>, usize) {
    let placed = model.place(prompt, seen);
    let mut rows: Vec<usize> = (0..placed.keys.len()).collect();
    let next = placed.positions.end(rows.len());
    if let Some(kept) = &answer.kept {
        let stays: Vec<usize> = kept.iter().map(|&i| placed.visual[i]).collect();
        rows.retain(|row| placed.visual.binary_search(row).is_err() || stays.contains(row));
    }
    let all = placed.positions.axes(&rows);
    let axes = if matches!(placed.positions, Positions::Axes(_)) { 3 } else { 1 };
    ((0..axes).map(|axis| all.iter().map(|position| position[axis]).collect()).collect(), next)
}

/// Writes what the language model reads of the images without pruning, and what the method ranks by, where it ranks by a number.
fn write_embeds<B: VlmBackend>(
    path: &Path,
    model: &Model<B>,
    media: &[Media],
    prompt: &Prompt,
    selector: &Selector<B>,
) -> anyhow::Result<()> {
    let card = selector.method().card();
    let whole = NoPruning { tiling: card.tiling, class: selector.method().keeps_class() };
    let (mut visual, mut cue, mut placeholder) = (Vec::new(), Vec::new(), 0);
    for media in media {
        let encoded = model.encode_media(media, card.tiling, card.needs)?;
        visual.extend(host(model.prune(&encoded, &whole, None, prompt, placeholder)?.tokens));
        if let Selector::Before(pruner) = selector {
            cue.extend(model.scores(&encoded, &**pruner, prompt, placeholder)?.into_iter().flatten().flatten());
        }
        placeholder += encoded.placeholders();
    }
    let width = model.decoder_config().hidden_size;
    let mut tensors = vec![("visual", vec![visual.len() / width, width], &visual[..])];
    if !cue.is_empty() {
        tensors.push(("cue", vec![cue.len()], &cue[..]));
    }
    Ok(write_tensors(path, &tensors)?)
}
