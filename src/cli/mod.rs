//! The command line: [`args`](Args) as typed, a plan that is checked before any weight is read, and a file for each
//! subcommand.

/// Writes a line to stderr. Unlike `eprintln!`, it does not end a run whose stderr nobody reads any more, and it
/// escapes control characters.
macro_rules! say {
    ($($part:tt)*) => {
        $crate::cli::terminal::say(&format!($($part)*))
    };
}

/// Returns a [`Usage`] error.
macro_rules! usage {
    ($($part:tt)*) => {
        return Err($crate::cli::Usage(format!($($part)*)).into())
    };
}

mod analyze;
mod answer;
mod args;
mod ask;
mod bench;
mod benchmark;
mod ceilings;
mod check;
mod compare;
mod complete;
mod cues;
mod demo;
mod eval;
mod fixed;
mod interrupt;
mod json;
mod judge;
mod list;
mod memory;
mod merge;
mod plan;
mod progress;
mod prune;
mod pull;
mod quantize;
mod report;
mod score;
#[cfg(feature = "serve")]
mod serve;
mod shell;
mod show;
mod sweep;
mod terminal;
mod trace;
mod tune;
mod version;
mod workers;

use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use args::Command;
pub use args::{Args, Unread, parse};
use json::print_json;
use secateur_backends::kernels_of;
use serde_json::{Value, json};
pub use terminal::{plain, without_numbers};

use crate::{
    Error,
    demo::{looks_drawn, unknown_words},
    files::{address, check_regular},
    image::is_turned,
    model::{Checkpoint, DEMO},
    task::{MediaSource, Sample, Task, fetch},
    video::{FrameRule, Media, check_reader, needs_ffmpeg},
};

/// A value on the command line that is wrong whatever the machine holds.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

/// Runs a subcommand.
///
/// # Errors
/// When the user's files or flags make it impossible; the error is one chain of causes.
pub fn run(args: Args) -> anyhow::Result<()> {
    if workers::is_worker() { workers::end(run_command(args)) } else { run_command(args) }
}

fn run_command(args: Args) -> anyhow::Result<()> {
    #[cfg(feature = "serve")]
    let waits_for_signals = matches!(args.command, Command::Serve(_));
    #[cfg(not(feature = "serve"))]
    let waits_for_signals = false;
    if !waits_for_signals {
        interrupt::say_goodbye_on_interrupt();
    }
    terminal::keep_stdout_for_json(args.command.ends_with_json());
    match args.command {
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Ask(args) => ask::run(args),
        #[cfg(feature = "serve")]
        Command::Serve(args) => serve::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Sweep(args) => sweep::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Merge(args) => merge::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Quantize(args) => quantize::run(args),
        Command::Score(args) => score::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Show(args) => show::run(args),
        Command::Compare(args) => compare::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Analyze(args) => analyze::run(args),
        Command::Prune(args) => prune::run(args),
        Command::Check(args) => check::run(&args),
        Command::List(args) => list::run(&args),
        Command::Completions(args) => shell::completions(&args),
        Command::Man => shell::man(),
    }
}

/// The folder of a benchmark's data, by its whole path: the given folder, else the one in a checkout of LLaVA, else one
/// that is fetched from the hub. The path is empty for a benchmark that needs no data.
fn data_folder(task: &dyn Task, given: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    let default = task.card().data;
    match (given, task.card().hub) {
        _ if default.is_empty() => Ok(PathBuf::new()),
        (Some(given), _) if let Some(error) = address(&given) => Err(error.into()),
        (Some(given), _) if !given.is_dir() => {
            let what = if given.exists() { "it is a file, and no folder" } else { "there is no such folder" };
            Err(Error::data(&given, format!("{what}; --data names the folder of the benchmark")).into())
        }
        (Some(given), _) => Ok(std::path::absolute(given)?),
        (None, Some(set)) if !Path::new(default).is_dir() => Ok(fetch(task, set)?),
        (None, _) => Ok(std::path::absolute(default)?),
    }
}

/// Returns the path if a run's settings can hold it.
fn writable_name(path: PathBuf) -> anyhow::Result<PathBuf> {
    if path.to_str().is_none() {
        anyhow::bail!("{}: this path is not UTF-8, and a run's settings cannot hold it; rename it", path.display());
    }
    Ok(path)
}

/// Makes a folder and its parents.
fn make_folder(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(Error::io(path, "the folder cannot be made"))
}

/// Refuses images and videos that are not there before a model is fetched for them.
fn check_there(path: &Path) -> Result<(), Error> {
    if let Some(error) = address(path) {
        return Err(error);
    }
    check_regular(path, "the image or video cannot be read")
}

/// Reads an image, upright as people see it, or a video.
fn see(path: &Path, frames: Option<FrameRule>) -> Result<Media, Error> {
    let (media, turned) = Media::read(path, frames)?;
    if turned {
        say!(
            "note: {}: turned upright, as its EXIF block says; `eval` and `trace` take the pixels as they are stored, as the official code does",
            path.display()
        );
    }
    Ok(media)
}

/// Notes what the built-in checkpoint cannot know: it was made for drawn shapes, and answers about anything.
fn note_outside(model: &str, media: &[Media], question: &str) {
    if model != DEMO {
        return;
    }
    let words = unknown_words(question);
    let others = media.iter().any(|media| matches!(media, Media::Image(image) if !looks_drawn(image)));
    let parts = [
        others.then(|| "an image that is none of its drawings".to_owned()),
        (!words.is_empty()).then(|| format!("a question with {}", words.join(", "))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        say!(
            "note: {DEMO} knows nothing but drawings of coloured shapes and questions about them; here is {}",
            parts.join(", and ")
        );
    }
}

/// Notes that people see an image another way up than it is stored and measured.
fn note_turned(path: &Path) {
    if is_turned(path) {
        say!(
            "note: {}: its EXIF block says that it is stored turned; its pixels are taken as they are stored, as the official code does",
            path.display()
        );
    }
}

/// Refuses temperatures and shares outside of their ranges.
fn check_sampling(temperature: f32, top_p: f32) -> anyhow::Result<()> {
    if !(0.0..=100.0).contains(&temperature) {
        usage!("--temperature {temperature} is not possible: 0 is greedy, 100 the most");
    }
    if !(top_p > 0.0 && top_p <= 1.0) {
        usage!("--top-p {top_p} is not possible: it is above 0 and at most 1");
    }
    Ok(())
}

/// Refuses questions about videos before weights are read, if the model sees no videos or no program here reads them.
fn check_videos(samples: &[Sample], checkpoint: &Checkpoint) -> Result<(), Error> {
    let mut videos = samples.iter().filter_map(|sample| match &sample.media {
        Some(MediaSource::Video(path)) => Some(path),
        _ => None,
    });
    match videos.next() {
        Some(path) if checkpoint.frames().is_none() => Err(Error::NoVideo { path: path.clone() }),
        Some(first) => match std::iter::once(first).chain(videos).find(|path| needs_ffmpeg(path)) {
            Some(path) => check_reader(path),
            None => Ok(()),
        },
        None => Ok(()),
    }
}

/// Writes a line for people to stdout, or to stderr where stdout is for JSON alone. Unlike with `println!`, a closed pipe is an error and no
/// panic.
fn print(text: &str) -> std::io::Result<()> {
    if terminal::is_stdout_for_json() {
        terminal::say(text);
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", terminal::for_stdout(text))?;
    out.flush()
}

/// An object with the instructions and the kernels of a backend, if it chooses among kernels.
fn with_kernels(mut object: Value, backend: &str) -> Value {
    if let Some(kernels) = kernels_of(backend) {
        let choices = kernels.choices.into_iter().map(|(operation, kernel)| (operation.to_owned(), json!(kernel)));
        object["instructions"] = json!(kernels.instructions);
        object["kernels"] = Value::Object(choices.collect());
    }
    object
}

/// The median of times: the middle one, or the mean of the two in the middle; `None` without times.
fn median(times: impl IntoIterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    let (low, high) = (times.len().checked_sub(1)? / 2, times.len() / 2);
    Some((times[low] + times[high]) / 2)
}

/// The time in milliseconds, for JSON and for people.
fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
