//! `secateur demo`: a trained model, its benchmark and every budget, with nothing but this binary.

use std::{path::Path, sync::Arc};

use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use secateur_backends::{Job, VlmBackend};

mod table;

use table::{Row, Table, Times};

use super::{
    args::DemoArgs,
    make_folder,
    plan::{BUDGETS, names},
    print, print_json,
};
use crate::{
    cost::{kv_bytes, prefill_flops, visual_tokens},
    engine::{Decoding, answer, answer_encoded, go_on, kept},
    eval::prompt,
    files::write_file,
    image::{kept_patches, png},
    model::{Beside, DEMO, LoadOptions, Model, open},
    plot::{captioned, columns},
    pruner::{Needs, NoPruning, Params, Selector, selector},
    statistics::Mark,
    task::{Answer, Demo, Protocol, Sample, Task},
    text::{Prompt, strip as trim},
    video::Media,
};

/// The budget at which images are saved.
const SHOWN: usize = 64;
/// The number of images that are shown with their answers: one of each category.
const IMAGES: usize = 4;
/// The number of repeats, whose median is the time to the first token.
const REPEATS: usize = 9;

pub(super) fn run(args: DemoArgs) -> anyhow::Result<()> {
    let params = Params { seed: args.seed, ..Params::default() };
    let names: Vec<&'static str> = names(&args.method)?.into_iter().filter(|&name| name != "none").collect();
    if args.questions < 2 * IMAGES {
        usage!("--questions {} is not possible: it takes {} or more", args.questions, 2 * IMAGES);
    }
    if args.seeds == 0 {
        usage!("--seeds 0 runs nothing; 1 is one seed");
    }
    let target = args.target.choose()?;
    target.run(Show { args, names, params, backend: target.backend })?
}

struct Show {
    args: DemoArgs,
    names: Vec<&'static str>,
    params: Params,
    backend: &'static str,
}

impl Job for Show {
    type Output = anyhow::Result<()>;

    fn run<B: VlmBackend>(self, device: B::Device) -> Self::Output {
        let model: Model<B> =
            open(DEMO, Beside::default())?.load(LoadOptions { joint: true, ..LoadOptions::default() }, &device)?;
        let mut selectors = vec![selector::<B>("none", self.params)?];
        for name in &self.names {
            let first = selector::<B>(name, self.params)?;
            let seeds = if first.method().card().needs.fingerprint { self.args.seeds } else { 1 };
            selectors.push(first);
            for seed in 1..seeds {
                selectors.push(selector::<B>(name, Params { seed: self.params.seed + seed, ..self.params })?);
            }
        }
        let mut samples = Demo.samples(Path::new(""))?;
        // Only whole images: both questions of each.
        samples.truncate(self.args.questions / 2 * 2);
        print("The checkpoint inside this binary sees drawn images: coloured shapes among grey clutter.\n")?;
        introduce(&model, &samples)?;
        let mut once = vec![true; selectors.len()];
        for i in 1..selectors.len() {
            once[i] = selectors[i].method().name() != selectors[i - 1].method().name();
        }
        let shown: Vec<&Selector<B>> =
            selectors[1..].iter().zip(&once[1..]).filter(|(_, once)| **once).map(|(s, _)| s).collect();
        let saved = save_images(&model, &shown, &samples, &self.args.out)?;
        let mut table = accuracies(&model, &selectors, &samples)?;
        costs(&model, &selectors, &samples, &mut table)?;
        let table = table.over_seeds();
        print(&table.text(self.backend, samples.len()))?;
        if let Some(winner) = table.winner(SHOWN) {
            print(&format!("\n{winner}"))?;
        }
        print(&saved)?;
        print(&next_steps(&self.args.out, &samples))?;
        if self.args.json {
            print_json(&table.json(self.backend, samples.len()))?;
        }
        Ok(())
    }
}

/// Prints the first questions and their answers without pruning, and whether these are right.
fn introduce<B: VlmBackend>(model: &Model<B>, samples: &[Sample]) -> anyhow::Result<()> {
    let whole = selector::<B>("none", Params::default())?;
    let mut answers = Vec::new();
    for sample in samples.iter().take(2 * IMAGES) {
        let (images, prompt) = asked(model, sample)?;
        let (_, generated) = answer(model, &images, &prompt, &whole, None, decoding(), go_on)?;
        answers.push(Answer::new(sample, trim(&model.tokenizer().decode(&generated.ids)).to_owned(), DEMO));
    }
    let marks = Demo.score(Path::new(""), &answers, Protocol::Llava)?.marks.answers;
    for answer in &answers {
        let is_right = |mark: &Mark| mark.prompt == answer.prompt && mark.credit > 0.5 && mark.id == answer.question_id;
        let sign = if marks.iter().any(is_right) { "✓" } else { "✗" };
        let place = answer.question_id.as_str().unwrap_or_default();
        print(&format!("  {place:<18} {:<80} {:<4} {sign}", answer.prompt, answer.text))?;
    }
    Ok(())
}

/// Three commands to go on with, about the first image.
fn next_steps(out: &Path, samples: &[Sample]) -> String {
    let (image, question) = (out.join("image-1.png"), samples.first().map_or("", |sample| sample.text.as_str()));
    let image = image.display();
    format!(
        "\nTo go on:\n  secateur ask --model demo --method trim --tokens 64 {image} \"{question}\"\n  \
         secateur show --model demo --method all --tokens 64 --heat {image} \"{question}\"\n  \
         secateur sweep demo --method fastervlm,random --budgets 64,29 --limit 100 --seeds 5"
    )
}

/// Saves a strip for each of the first images: the image, and what every method keeps of it.
fn save_images<B: VlmBackend>(
    model: &Model<B>,
    selectors: &[&Selector<B>],
    samples: &[Sample],
    out: &Path,
) -> anyhow::Result<String> {
    make_folder(out)?;
    for (i, sample) in samples.iter().step_by(2).take(IMAGES).enumerate() {
        let (images, prompt) = asked(model, sample)?;
        let grid = model.grid();
        let Some(Media::Image(whole)) = images.first() else { continue };
        write_file(&out.join(format!("image-{}.png", i + 1)), &png(whole))?;
        let mut shown = vec![captioned(whole, "the whole image")];
        for selector in selectors {
            let (seen, generated) = answer(model, &images, &prompt, selector, Some(SHOWN.into()), decoding(), go_on)?;
            let image = kept_patches(whole, grid, &kept(&seen, &generated).0[0]);
            let text = trim(&model.tokenizer().decode(&generated.ids)).to_owned();
            shown.push(captioned(&image, &format!("{}: {text}", selector.method().name())));
        }
        let strip = captioned(&columns(&shown, shown.len().div_ceil(2)), &sample.text);
        write_file(&out.join(format!("kept-{}.png", i + 1)), &png(&strip))?;
    }
    let images = out.join("kept-*.png");
    Ok(format!("\nWhat {SHOWN} tokens show of the first {IMAGES} images, with the answers: {}", images.display()))
}

/// The accuracy of every method at every budget on all questions. Each image is encoded once.
fn accuracies<B: VlmBackend>(model: &Model<B>, selectors: &[Selector<B>], samples: &[Sample]) -> anyhow::Result<Table> {
    let patches = model.grid().tokens();
    let runs: Vec<(usize, usize)> = runs(selectors.len(), patches);
    let mut answers: Vec<Vec<Answer>> = vec![Vec::new(); runs.len()];
    let needs = selectors.iter().fold(Needs::default(), |needs, selector| needs.and(selector.method().card().needs));
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} images · {eta} left")?;
    let bar = ProgressBar::new(samples.len() as u64 / 2).with_style(style);
    let answered: Vec<Answer> = samples
        .par_chunks(2)
        .map(|pair| {
            let answers = about_one_image(model, selectors, &runs, needs, pair);
            bar.inc(1);
            answers
        })
        .collect::<anyhow::Result<Vec<Vec<Answer>>>>()?
        .concat();
    // The answers of a question come run by run.
    for (i, answer) in answered.into_iter().enumerate() {
        answers[i % runs.len()].push(answer);
    }
    bar.finish_and_clear();
    let mut rows = Vec::new();
    for (&(selector, budget), answers) in runs.iter().zip(&answers) {
        let report = Demo.score(Path::new(""), answers, Protocol::Llava)?;
        let percent = |share: Option<f64>| 100.0 * share.unwrap_or_default();
        rows.push(Row {
            method: selectors[selector].method().name(),
            tokens: budget,
            accuracy: percent(report.marks.score()),
            standard_error: percent(report.marks.standard_error()),
            seeds: 1,
            marks: report.marks,
            times: Times::default(),
            flops: 0,
            kv_bytes: 0,
        });
    }
    Ok(Table { rows })
}

/// The answers to both questions about an image: all runs of the first question, then all of the second.
fn about_one_image<B: VlmBackend>(
    model: &Model<B>,
    selectors: &[Selector<B>],
    runs: &[(usize, usize)],
    needs: Needs,
    pair: &[Sample],
) -> anyhow::Result<Vec<Answer>> {
    let (images, _) = asked(model, &pair[0])?;
    let media = Arc::new(model.encode_media(&images[0], NoPruning::default().tiling, needs)?);
    let mut answers = Vec::new();
    for sample in pair {
        let prompt = prompt(model, sample, &[images[0].placeholders(None)])?;
        for &(selector, budget) in runs {
            let (selector, media) = (&selectors[selector], std::slice::from_ref(&media));
            let (_, generated) =
                answer_encoded(model, media, &prompt, selector, Some(budget.into()), decoding(), go_on)?;
            let text = trim(&model.tokenizer().decode(&generated.ids)).to_owned();
            answers.push(Answer::new(sample, text, DEMO));
        }
    }
    Ok(answers)
}

/// Adds the cost of each run: FLOPs and bytes by arithmetic, and the median times. Every run's repeats are spread over
/// the whole measurement.
fn costs<B: VlmBackend>(
    model: &Model<B>,
    selectors: &[Selector<B>],
    samples: &[Sample],
    table: &mut Table,
) -> anyhow::Result<()> {
    let runs = runs(selectors.len(), model.grid().tokens());
    let mut times = vec![Vec::new(); runs.len()];
    for (round, sample) in samples.iter().cycle().take(REPEATS + 1).enumerate() {
        let (images, prompt) = asked(model, sample)?;
        for ((&(selector, budget), times), row) in runs.iter().zip(&mut times).zip(&mut table.rows) {
            let selector = &selectors[selector];
            let (seen, generated) = answer(model, &images, &prompt, selector, Some(budget.into()), decoding(), go_on)?;
            let config = model.decoder_config();
            let layers = visual_tokens(selector, config.num_hidden_layers, &seen, &generated);
            row.flops = prefill_flops(config, &layers);
            row.kv_bytes = kv_bytes(config, &layers, model.cache_dtype().size());
            // The first round warms up.
            if round > 0 {
                let (vision, prune, prefill) = (seen[0].vision, seen[0].prune, generated.prefill);
                times.push(Times { vision, prune, prefill, first_token: vision + prune + prefill });
            }
        }
    }
    for (row, times) in table.rows.iter_mut().zip(times) {
        row.times = Times::medians(&times);
    }
    Ok(())
}

/// The selector's number and the budget of every row: all tokens without pruning, then each method at each budget.
fn runs(selectors: usize, patches: usize) -> Vec<(usize, usize)> {
    let pruned = (1..selectors).flat_map(|selector| BUDGETS.map(|budget| (selector, budget)));
    std::iter::once((0, patches)).chain(pruned).collect()
}

fn asked<B: VlmBackend>(model: &Model<B>, sample: &Sample) -> anyhow::Result<(Vec<Media>, Prompt)> {
    let images = sample.media.iter().map(|image| image.open(None)).collect::<Result<Vec<_>, _>>()?;
    let placeholders: Vec<usize> = images.iter().map(|image| image.placeholders(None)).collect();
    Ok((images, prompt(model, sample, &placeholders)?))
}

fn decoding() -> Decoding {
    Decoding::greedy(Demo.card().max_new_tokens)
}
