//! Video files, through the `ffmpeg` and `ffprobe` programs: whatever they read is read.
//!
//! Frames are counted as decord counts them for the official code, packet by packet without decoding, and are then picked by
//! their numbers while ffmpeg decodes.

use std::{
    io::ErrorKind,
    path::Path,
    process::{Command, Stdio},
};

use ffmpeg_sidecar::{
    command::FfmpegCommand,
    event::{FfmpegEvent, LogLevel},
    ffprobe::ffprobe_path,
};
use serde::Deserialize;

use super::{distinct, frame_numbers, repeated};
use crate::{
    Error,
    image::{MAX_PIXELS, Rgb},
};

/// What ffprobe says of a file.
#[derive(Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    width: Option<u64>,
    height: Option<u64>,
    nb_read_packets: Option<String>,
    nb_read_frames: Option<String>,
}

/// How frames are counted.
#[derive(Clone, Copy)]
enum Count {
    Packets,
    /// By decoding the whole file.
    Frames,
}

pub(super) fn read(path: &Path, wanted: usize) -> Result<(Vec<usize>, Vec<Rgb>), Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let mut reason = String::new();
    // A file that is cut short has packets that give no frame: then it is counted by what can be seen.
    for how in [Count::Packets, Count::Frames] {
        let count = count(path, how)?;
        if count == 0 {
            continue;
        }
        let numbers = frame_numbers(count, wanted);
        let chosen = distinct(&numbers);
        let (frames, said) = pick(path, &chosen)?;
        if frames.len() == chosen.len() {
            return Ok((numbers.clone(), repeated(&numbers, &frames)));
        }
        reason = format!("ffmpeg gave {} of {} frames; {said}", frames.len(), chosen.len());
    }
    Err(fail(if reason.is_empty() { "no frame in it can be decoded".to_owned() } else { reason }))
}

/// The frames of the first video stream; a cover picture is none.
fn count(path: &Path, how: Count) -> Result<usize, Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let (flag, entry) = match how {
        Count::Packets => ("-count_packets", "nb_read_packets"),
        Count::Frames => ("-count_frames", "nb_read_frames"),
    };
    let output = Command::new(ffprobe_path())
        .args(["-v", "error", "-select_streams", "V:0", flag, "-show_entries"])
        .arg(format!("stream=width,height,{entry}"))
        .args(["-of", "json"])
        .arg(local(path))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_there(path, "ffprobe", &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let probe: Probe = serde_json::from_slice(&output.stdout).unwrap_or(Probe { streams: Vec::new() });
    let Some(stream) = probe.streams.first() else {
        return Err(fail(match last_line(&said) {
            Some(line) if !output.status.success() => format!("ffmpeg cannot read it: {line}"),
            _ => "there is no video in this file".to_owned(),
        }));
    };
    let (width, height) = (stream.width.unwrap_or(0), stream.height.unwrap_or(0));
    if width == 0 || height == 0 || width.saturating_mul(height) > MAX_PIXELS {
        return Err(fail(format!("{width}×{height} pixels cannot be read; up to {MAX_PIXELS} in all are")));
    }
    let count = stream.nb_read_packets.as_ref().or(stream.nb_read_frames.as_ref());
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// The frames of these numbers, which ascend, as far as they can be decoded, and the last that ffmpeg had to say.
fn pick(path: &Path, numbers: &[usize]) -> Result<(Vec<Rgb>, String), Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let chosen: Vec<String> = numbers.iter().map(|number| format!("eq(n,{number})")).collect();
    let mut child = FfmpegCommand::new()
        .args(["-nostdin"])
        .input(local(path))
        .map("0:V:0")
        .filter(format!("select='{}'", chosen.join("+")))
        .fps_mode("passthrough")
        .frames(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
        .rawvideo()
        .spawn()
        .map_err(|error| not_there(path, "ffmpeg", &error))?;
    let events = child.iter().map_err(|error| fail(format!("ffmpeg cannot be heard: {error}")))?;
    let mut frames = Vec::with_capacity(numbers.len());
    let mut said = String::new();
    for event in events {
        match event {
            FfmpegEvent::OutputFrame(frame) => {
                frames.push(Rgb { width: frame.width as usize, height: frame.height as usize, data: frame.data });
            }
            FfmpegEvent::Log(LogLevel::Error | LogLevel::Fatal, line) => said = line,
            _ => {}
        }
    }
    // Whatever its status, what counts is which frames came.
    let _ = child.wait();
    Ok((frames, said.trim().to_owned()))
}

/// The name of a file that ffmpeg takes for nothing else: no option, no address.
fn local(path: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    name
}

fn not_there(path: &Path, program: &str, error: &std::io::Error) -> Error {
    let reason = match error.kind() {
        ErrorKind::NotFound => format!(
            "videos are read by the program `{program}`, which is not on this machine; install ffmpeg, or give a GIF or a \
             folder of frames"
        ),
        _ => format!("the program `{program}` cannot be started: {error}"),
    };
    Error::Video { path: path.to_owned(), reason }
}

fn last_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).rfind(|line| !line.is_empty())
}
