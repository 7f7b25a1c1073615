//! `secateur bench`: the time of each stage, for a checkpoint or a named shape, method by method and budget by budget.

use std::time::Duration;

use anyhow::bail;
use burn::tensor::DType;
use indicatif::{ProgressBar, ProgressStyle};
use secateur_backends::{Job, Target, VlmBackend};

mod table;

use table::{Row, Table, Times};

use super::{
    args::BenchArgs,
    ceilings,
    memory::peak_memory,
    plan::{BUDGETS, budgets, check_needs, names, params, text_side},
    print, print_json,
};
use crate::{
    cost::{kv_bytes, prefill_flops, prefill_work, step_bytes, visual_tokens},
    engine::{Decoding, answer, go_on},
    image::Rgb,
    model::{Checkpoint, DEMO, LoadOptions, Model, Weights, check_layer, open, preset},
    pruner::{Budget, Params, Selector, method, selector},
    text::{IMAGE_TOKEN, Prompt},
    video::{FrameRule, Media, Video},
};

/// The number of text tokens before the image, as in LLaVA's prompts.
const BEFORE: usize = 35;

pub(super) fn run(args: BenchArgs) -> anyhow::Result<()> {
    if args.repeats == 0 || args.new_tokens < 2 || args.prompt_tokens <= BEFORE {
        usage!("--repeats takes 1 or more, --new-tokens 2 or more, --prompt-tokens {} or more", BEFORE + 1);
    }
    let params = params(&args.method)?;
    let mut names = names(args.method.list())?;
    names.retain(|&name| name != "none");
    let mut budgets = budgets(&args.budgets, args.method.tokens);
    if budgets.is_empty() {
        budgets.extend(BUDGETS.map(Budget::from));
    }
    let target = args.method.target.choose()?;
    let (checkpoint, name) = subject(&args)?;
    let reads_text =
        |name: &&'static str| method(name, params).is_ok_and(|method| checkpoint.reads_text_side(method.card().needs));
    check_needs(&mut names, |name| (name, params), &args.method, &checkpoint)?;
    let joint = text_side(&mut names, reads_text, &args.method, || checkpoint.check_text_side())?;
    for name in &names {
        if let Some(layer) = method(name, params)?.cut_layer() {
            check_layer(layer, checkpoint.decoder().num_hidden_layers)?;
        }
    }
    for budget in &budgets {
        checkpoint.check_budget(*budget)?;
    }
    let limit = checkpoint.decoder().max_position_embeddings;
    if args.prompt_tokens.saturating_add(args.new_tokens) > limit {
        bail!(
            "--prompt-tokens and --new-tokens are {} and {}, and the model reads {limit} with the image's",
            args.prompt_tokens,
            args.new_tokens
        );
    }
    let options = args.weights.options(joint);
    let (table, json) = target.run(Bench { args, checkpoint, name, names, budgets, params, options, target })??;
    print(&table.text())?;
    if json {
        print_json(&table.json())?;
    }
    Ok(())
}

/// The checkpoint or preset that is measured, and its name.
fn subject(args: &BenchArgs) -> anyhow::Result<(Checkpoint, String)> {
    let shape = args.shape.as_deref().unwrap_or(DEMO);
    let (random, name) = (args.model.is_none() && shape != DEMO, args.model.as_deref().unwrap_or(shape));
    if let Some(layers) = args.layers.filter(|_| !random) {
        bail!("--layers {layers} is not possible: it is for a shape with random weights, and {name} has its own");
    }
    let mut checkpoint = match &args.model {
        Some(model) => {
            let checkpoint = open(model, args.weights.beside())?;
            checkpoint.notes.iter().for_each(|note| say!("note: {note}"));
            checkpoint
        }
        None => preset(shape)?,
    };
    args.weights.set_pixels(&mut checkpoint)?;
    if let Some(layers) = args.layers {
        let all = checkpoint.decoder().num_hidden_layers;
        if !(1..=all).contains(&layers) {
            bail!("--layers {layers} is not possible: the shape has {all}");
        }
        checkpoint.set_layers(layers);
    }
    Ok((checkpoint, name.to_owned()))
}

struct Bench {
    args: BenchArgs,
    checkpoint: Checkpoint,
    name: String,
    names: Vec<&'static str>,
    budgets: Vec<Budget>,
    params: Params,
    options: LoadOptions,
    target: Target,
}

impl Job for Bench {
    type Output = anyhow::Result<(Table, bool)>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let Self { args, checkpoint, name, names, budgets, params, options, target } = self;
        let (media, random) = ([media(&checkpoint, &name)], checkpoint.is_random());
        let model: Model<B> = checkpoint.load(options, &device)?;
        model.notes().iter().for_each(|note| say!("note: {note}"));
        let mut runs: Vec<(Selector<B>, Option<Budget>)> = vec![(selector("none", params)?, None)];
        for name in names {
            for &budget in &budgets {
                runs.push((selector(name, params)?, Some(budget)));
            }
        }
        let prompt = prompt(args.prompt_tokens, media[0].placeholders(model.frames()));
        let mut rows: Vec<Row> = Vec::new();
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} answers · {eta} left")?;
        let bar = ProgressBar::new(args.repeats.saturating_add(1).saturating_mul(runs.len()) as u64).with_style(style);
        // Repeats of a row are spread over the whole measurement, so that a slow minute touches all rows alike.
        for round in 0..=args.repeats {
            for (i, (selector, budget)) in runs.iter().enumerate() {
                let measured = measure(&model, &media, &prompt, selector, *budget, args.new_tokens)?;
                match rows.get_mut(i) {
                    // The first round warms up; only its counts are kept.
                    None => rows.push(measured),
                    Some(row) if round > 0 => row.times.extend(measured.times),
                    Some(_) => {}
                }
                if round == 0 {
                    rows[i].times.clear();
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        // The peak is read before the ceilings make their own tensors.
        let peak = peak_memory();
        let ceilings = match args.ceilings {
            true => {
                let rounded = options.dtype == Some(DType::BF16);
                let largest = target.info().and_then(|info| info.largest).unwrap_or(u64::MAX);
                let weights = match model.decoder_weights() {
                    Weights::Blocks(_) if rounded => DType::BF16,
                    weights => weights.dtype(),
                };
                Some(ceilings::measure::<B>([model.activations(), weights], rounded, largest, &device)?)
            }
            false => None,
        };
        let table = Table {
            model: if random {
                format!("{name}, {} layers, random weights", model.decoder_config().num_hidden_layers)
            } else {
                name
            },
            backend: target.backend,
            weights: weights(&model, options.dtype, random),
            activations: name_of(model.activations()),
            text: args.prompt_tokens,
            new_tokens: args.new_tokens,
            repeats: args.repeats,
            peak_bytes: peak,
            ceilings,
            rows,
        };
        Ok((table, args.json))
    }
}

/// Measures one answer of exactly `new_tokens` tokens.
fn measure<B: VlmBackend>(
    model: &Model<B>,
    media: &[Media],
    prompt: &Prompt,
    selector: &Selector<B>,
    budget: Option<Budget>,
    new_tokens: usize,
) -> anyhow::Result<Row> {
    // No token ends the answer.
    let decoding = Decoding { stops: false, ..Decoding::greedy(new_tokens) };
    let (seen, generated) = answer(model, media, prompt, selector, budget, decoding, go_on)?;
    let config = model.decoder_config();
    let layers = visual_tokens(selector, config.num_hidden_layers, &seen, &generated);
    let sum = |time: fn(&crate::model::VisualTokens<B>) -> Duration| seen.iter().map(time).sum::<Duration>();
    let project = sum(|seen| seen.project);
    let times = Times {
        vision: sum(|seen| seen.vision) - project,
        prune: sum(|seen| seen.prune),
        project,
        prefill: generated.prefill,
        decode: generated.decode / generated.steps.max(1) as u32,
    };
    let placeholders: usize = media.iter().map(|media| media.placeholders(model.frames())).sum();
    let whole: Vec<usize> = layers.iter().map(|visual| visual + prompt.ids.len() - placeholders).collect();
    let patches = seen.first().map_or(model.grid(), |visual| visual.grid).tokens();
    Ok(Row {
        method: selector.method().name(),
        tokens: budget.map_or(Ok(patches), |budget| model.budget(budget, patches))?,
        visual: layers.first().copied().unwrap_or(0),
        flops: prefill_flops(config, &layers),
        kv_bytes: kv_bytes(config, &layers, model.cache_dtype().size()),
        prompt_work: prefill_work(config, &whole),
        step_bytes: step_bytes(config, &whole, model.decoder().step_bytes(), model.cache_dtype().size()),
        times: vec![times],
    })
}

/// An image of noise that gives the number of crops that papers report, one or five; or a video, for a model that sees
/// videos.
fn media(checkpoint: &Checkpoint, name: &str) -> Media {
    let side = checkpoint.usual_side();
    let level = |i: usize| (i.wrapping_mul(2_654_435_761) >> 13) as u8;
    let image = Rgb { width: side, height: side, data: (0..side * side * 3).map(level).collect() };
    match checkpoint.frames() {
        Some(FrameRule::Count(frames)) => Media::Video(Video {
            path: name.into(),
            frames: vec![image; frames],
            numbers: (0..frames).collect(),
            times: Vec::new(),
            rate: None,
        }),
        None | Some(FrameRule::Rate(_)) => image.into(),
    }
}

/// A prompt with `tokens` tokens of text around the placeholders, which stand where LLaVA's prompts have them.
fn prompt(tokens: usize, placeholders: usize) -> Prompt {
    let text = |i: usize| if i == 0 { 1 } else { 300 + (i % 200) as i64 };
    let mut ids: Vec<i64> = (0..BEFORE).map(text).collect();
    ids.extend(std::iter::repeat_n(IMAGE_TOKEN, placeholders));
    ids.extend((BEFORE..tokens).map(text));
    Prompt { ids, question: "What is in the image?".to_owned() }
}

/// The type of the weights, for people.
fn weights<B: VlmBackend>(model: &Model<B>, asked: Option<DType>, random: bool) -> String {
    if let Weights::Blocks(kind) = model.decoder_weights() {
        return format!("blocks, most of them {kind}");
    }
    match asked {
        Some(dtype) => name_of(dtype),
        None if random => name_of(DType::F16),
        None => "the file's types".to_owned(),
    }
}

fn name_of(dtype: DType) -> String {
    format!("{dtype:?}").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_have_clips_text_but_for_videos() {
        for (name, there) in [("llava-1.5-7b", true), ("llava-1.6-13b", true), ("video-7b", false)] {
            assert_eq!(preset(name).unwrap().check_text_side().is_ok(), there, "{name}");
        }
    }
}
