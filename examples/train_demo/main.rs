//! Trains the checkpoint under `weights/demo` from nothing, on the same model code that runs everything else.
//!
//! ```text
//! cargo run --release --features train --example train_demo
//! ```
//!
//! Three phases, each with its own learning-rate cycle:
//!
//! 1. CLIP alone, on windows of 12×12 patches (an eighth of the work of a whole image): image against caption, and a
//!    linear reader that must tell from each patch what lies on it, so that shapes and places are in the features.
//! 2. The same losses, and conversations about the same windows for projector and language model.
//! 3. Images of all sizes, and every question alone behind its image, as it will be asked: a text that always stands
//!    behind 576 tokens does not learn to stand behind 64.
//!
//! Every image is drawn from the seed, the phase and the step, so a run that was stopped goes on from its last save as
//! if nothing had happened.

mod data;
mod optimiser;
mod save;
mod student;
mod tokenizer;
mod trial;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, anyhow};
use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module},
    optim::{GradientsAccumulator, GradientsParams},
    record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder},
    tensor::backend::Backend,
};
use clap::Parser;
use data::{Asked, Maker, stream};
use indicatif::{ProgressBar, ProgressStyle};
use optimiser::Optimiser;
use secateur::{
    demo::GRID,
    model::{Beside, LlavaConfig, TextSide, families::llava::Llava, open},
};
use secateur_backends::Flex;
use student::{Student, fork};

type B = Autodiff<Flex>;

/// Trains the demo checkpoint.
#[derive(Parser)]
struct Args {
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of the three phases.
    #[arg(long, value_delimiter = ',', default_values_t = [600, 1100, 1500])]
    steps: Vec<usize>,
    /// Where the checkpoint goes; its config files must be there.
    #[arg(long, default_value = "weights/demo")]
    out: PathBuf,
    /// Where the state is saved every 100 steps, and taken up again.
    #[arg(long, default_value = "target/train_demo")]
    state: PathBuf,
}

/// A phase of training.
struct Phase {
    name: &'static str,
    steps: usize,
    /// Patches on a side of its images, and images a step: the steps take turns.
    sizes: &'static [(usize, usize)],
    rate: f64,
    asked: Asked,
}

/// Half of the steps see whole images, the others windows: what is read after pruning is as short as they are.
const ALL_SIZES: [(usize, usize); 8] =
    [(GRID, 16), (16, 32), (GRID, 16), (8, 64), (GRID, 16), (12, 48), (GRID, 16), (20, 20)];

/// Threads that each go through a part of a step's images.
const PARTS: usize = 2;

fn main() -> Result<()> {
    secateur_backends::prepare_host();
    let args = Args::parse();
    let [clip, windows, all] = args.steps[..] else { return Err(anyhow!("--steps takes three numbers")) };
    let phase = |name, steps, sizes, rate, asked| Phase { name, steps, sizes, rate, asked };
    let together = |yes_or_no, open| Asked { yes_or_no, open, together: true };
    let phases = [
        phase("CLIP", clip, &[(12, 32)], 1.5e-3, together(0, 0)),
        phase("questions", windows, &[(12, 32)], 1.2e-3, together(5, 3)),
        phase("all sizes", all, &ALL_SIZES, 6e-4, Asked { yes_or_no: 14, open: 7, together: false }),
    ];
    std::fs::write(args.out.join("tokenizer.model"), tokenizer::model())?;
    let checkpoint = open(&args.out.display().to_string(), Beside::default())?;
    let TextSide { config: text, tokenizer: clip, .. } = checkpoint.text_side()?;
    let Llava { config, processor, .. } = Llava::read(&args.out)?;
    let maker = Maker { processor, llama: checkpoint.tokenizer, clip };
    std::fs::create_dir_all(&args.state)?;

    let device = Default::default();
    B::seed(&device, args.seed);
    let mut student = Student::<B>::new(&config, &text, &device);
    eprintln!("{} parameters", student.num_params());
    let started = Instant::now();
    for (number, phase) in phases.iter().enumerate().filter(|(_, phase)| phase.steps > 0) {
        student = train(&args, number, phase, student, &config, &maker)?;
        let valid = student.valid();
        save::checkpoint(&valid, &args.out)?;
        println!(
            "{}: {:.0} min. {}",
            phase.name,
            started.elapsed().as_secs_f64() / 60.0,
            trial::run(&valid, &config, &maker, 100, GRID)
        );
    }
    Ok(())
}

fn train(
    args: &Args,
    number: usize,
    phase: &Phase,
    mut student: Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
) -> Result<Student<B>> {
    let device = Default::default();
    let recorder = NamedMpkFileRecorder::<FullPrecisionSettings>::new();
    // Files of one step have its number, and the step's own file is written last: a kill leaves the state before.
    let place = |what: &str, step: usize| args.state.join(format!("{number}-{what}-{step}"));
    let saved = args.state.join(format!("{number}-step"));
    let first = match std::fs::read_to_string(&saved) {
        Ok(step) => step.trim().parse().with_context(|| format!("{} has no number", saved.display()))?,
        Err(_) => 0,
    };
    let missing = || format!("{} has no whole state of this recipe: remove it, or name another", args.state.display());
    if first > 0 {
        student = student.load_record(recorder.load(place("student", first), &device).with_context(missing)?);
    }
    let mut optimiser = Optimiser::new(&student, PARTS);
    if first > 0 {
        optimiser = optimiser.load(|what| place(what, first), &device).with_context(missing)?;
    }
    // A pool for each part: two threads that share one wait for each other in every product.
    let pool = |_| rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let pools = (0..PARTS).map(pool).collect::<Result<Vec<_>, _>>()?;
    if first > 0 && first < phase.steps {
        let valid = student.valid();
        println!("{} from step {first}", phase.name);
        println!("windows: {}", trial::run(&valid, config, maker, 200, 12));
        println!("whole: {}", trial::run(&valid, config, maker, 50, GRID));
    }
    let bar = ProgressBar::new(phase.steps as u64).with_position(first as u64).with_message(phase.name);
    bar.set_style(ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}")?);
    let began = Instant::now();
    let (mut means, mut seen) = ([0.0f64; 4], 0);
    let mut last_save = first;
    for step in first..phase.steps {
        let parts: Vec<(GradientsParams, [f64; 4])> = std::thread::scope(|scope| {
            let threads: Vec<_> = pools
                .iter()
                .enumerate()
                .map(|(part, pool)| {
                    let student = fork(&student);
                    scope.spawn(move || {
                        pool.install(|| go_through(student, config, maker, args.seed, number, phase, step, part))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a thread of the step")).collect()
        });
        let mut sum = GradientsAccumulator::new();
        for (gradients, losses) in parts {
            sum.accumulate(&student, gradients);
            means.iter_mut().zip(losses).for_each(|(mean, loss)| *mean += loss);
            seen += 1;
        }
        student = optimiser.step(rate(phase, step), student, sum.grads(), &pools);
        bar.inc(1);
        if (step + 1) % 50 == 0 {
            let [contrast, patches, relevance, answers] = means.map(|mean| mean / f64::from(seen));
            println!(
                "{:.0} s, {} {}: contrast {contrast:.3}, patches {patches:.3}, relevance {relevance:.3}, answers {answers:.3}",
                began.elapsed().as_secs_f64(),
                phase.name,
                step + 1
            );
            (means, seen) = ([0.0; 4], 0);
        }
        if (step + 1) % 100 == 0 || step + 1 == phase.steps {
            recorder.record(student.clone().into_record(), place("student", step + 1))?;
            let momenta = optimiser.save(|what| place(what, step + 1))?;
            let draft = saved.with_extension("part");
            std::fs::write(&draft, (step + 1).to_string())?;
            std::fs::rename(&draft, &saved)?;
            for what in ["student"].into_iter().chain(momenta.iter().map(String::as_str)) {
                // The state before, if there is one.
                let _ = std::fs::remove_file(place(what, last_save).with_extension("mpk"));
            }
            last_save = step + 1;
        }
        if (step + 1) % 250 == 0 {
            let valid = student.valid();
            println!("windows: {}", trial::run(&valid, config, maker, 150, 12));
            println!("whole: {}", trial::run(&valid, config, maker, 75, GRID));
        }
    }
    bar.finish();
    Ok(student)
}

/// Forwards and backwards over a part of a step's images.
#[allow(clippy::too_many_arguments)]
fn go_through(
    student: Student<B>,
    config: &LlavaConfig,
    maker: &Maker,
    seed: u64,
    number: usize,
    phase: &Phase,
    step: usize,
    part: usize,
) -> (GradientsParams, [f64; 4]) {
    let mut random = stream(seed, number as u64, step, part);
    let (size, images) = phase.sizes[step % phase.sizes.len()];
    let batch = maker.batch(&mut random, images / PARTS, size, phase.asked);
    let losses = student.losses(config, batch, &Default::default());
    let value = |loss: &burn::tensor::Tensor<B, 1>| f64::from(loss.clone().into_scalar());
    let answers = losses.answers.as_ref().map_or(0.0, value);
    let values = [value(&losses.contrast), value(&losses.patches), value(&losses.relevance), answers];
    let clip = losses.contrast + losses.patches * 2.0 + losses.relevance * 0.5;
    let total = match losses.answers {
        Some(answers) => clip * 0.3 + answers * 2.0,
        None => clip,
    };
    (GradientsParams::from_grads((total / PARTS as f64).backward(), &student), values)
}

/// Up over the first twentieth, then down half a cosine to a fiftieth.
fn rate(phase: &Phase, step: usize) -> f64 {
    let (done, warm) = (step as f64 / phase.steps as f64, 0.05);
    if done < warm {
        return phase.rate * (step + 1) as f64 / (warm * phase.steps as f64 + 1.0);
    }
    let down = (1.0 + (std::f64::consts::PI * (done - warm) / (1.0 - warm)).cos()) / 2.0;
    phase.rate * (0.02 + 0.98 * down)
}
