//! Video files, through the `ffmpeg` and `ffprobe` programs.
//!
//! Frames are counted as decord counts them for the official code, packet by packet without decoding, and are then
//! picked by their numbers while ffmpeg decodes. Where there are more packets than frames (a file that is cut short, a
//! clip that was cut without encoding it anew), the frames that can be decoded are counted instead; decord keeps its
//! count there.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use ffmpeg_sidecar::{child::FfmpegChild, command::FfmpegCommand, ffprobe::ffprobe_path, paths::ffmpeg_path};
use serde::Deserialize;

use super::{FrameRule, Frames, check_frame, distinct, frame_numbers, repeated};
use crate::{Error, image::Rgb};

/// The formats that are videos. ffmpeg reads others, too: it draws text files as images of text, and playlists lead to
/// other files.
const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h264,hevc,av1,ivf,obu,flv,asf,ogg,\
                       yuv4mpegpipe,gif,dv,vob,wtv,rm,mxf,nut,apng,swf,amv,gxf,bink,smk,vc1,h263,h261,mjpeg";

/// The output of ffprobe about a file.
#[derive(Default, Deserialize)]
struct Probe {
    #[serde(default)]
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct Stream {
    width: Option<u64>,
    height: Option<u64>,
    /// Frames a second, as fractions: on average, and by the clock of the file.
    avg_frame_rate: Option<String>,
    r_frame_rate: Option<String>,
    nb_read_packets: Option<String>,
    nb_read_frames: Option<String>,
}

/// Checks that there is a video in a file, without counting its frames.
pub(super) fn probe(path: &Path) -> Result<(), Error> {
    count(path, Count::None).map(|_| ())
}

/// The way in which frames are counted.
#[derive(Clone, Copy)]
enum Count {
    /// Frames are not counted.
    None,
    Packets,
    /// Frames are counted by decoding the whole file.
    Frames,
}

pub(super) fn read(path: &Path, wanted: FrameRule) -> Result<Frames, Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let mut reason = String::new();
    // A file that is cut short has packets that give no frame: then the frames that can be decoded are counted.
    for how in [Count::Packets, Count::Frames] {
        let (count, rate) = count(path, how)?;
        if count == 0 {
            continue;
        }
        let seconds = rate.map(|rate| count as f64 / rate);
        let numbers = frame_numbers(count, wanted.of(count, seconds));
        let chosen = distinct(&numbers);
        let (frames, said) = pick(path, &chosen)?;
        if frames.len() == chosen.len() {
            let frames = repeated(&numbers, frames);
            let at = |rate| numbers.iter().map(|number| Duration::from_secs_f64(*number as f64 / rate)).collect();
            let times = rate.map(at).unwrap_or_default();
            return Ok(Frames { numbers, frames, times, seconds });
        }
        reason = format!("ffmpeg gave {} of {} frames; {said}", frames.len(), chosen.len());
    }
    Err(fail(if reason.is_empty() { "no frame in it can be decoded".to_owned() } else { reason }))
}

/// The number of frames in the first video stream, and of frames a second where that is known; a cover image is not a
/// video stream.
fn count(path: &Path, how: Count) -> Result<(usize, Option<f64>), Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let (flag, entry) = match how {
        Count::None => ("-show_format", "nb_frames"),
        Count::Packets => ("-count_packets", "nb_read_packets"),
        Count::Frames => ("-count_frames", "nb_read_frames"),
    };
    let output = Command::new(ffprobe_path())
        .args([
            "-v",
            "error",
            "-format_whitelist",
            FORMATS,
            "-protocol_whitelist",
            "file",
            "-select_streams",
            "V:0",
            flag,
            "-show_entries",
        ])
        .arg(format!("stream=width,height,avg_frame_rate,r_frame_rate,{entry}"))
        .args(["-of", "json"])
        .arg(local(path))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| not_there(path, "ffprobe", &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let probe: Probe = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let Some(stream) = probe.streams.first() else {
        return Err(fail(match said.lines().map(str::trim).rfind(|line| !line.is_empty()) {
            _ if output.status.success() => "there is no video in this file".to_owned(),
            Some(line) if line.contains("not on whitelist") => "it is no video in a format that is read".to_owned(),
            Some(line) => format!("ffmpeg cannot read it: {line}"),
            None => format!("ffmpeg cannot read it ({})", output.status),
        }));
    };
    check_frame(path, stream.width.unwrap_or(0), stream.height.unwrap_or(0))?;
    let count = stream.nb_read_packets.as_ref().or(stream.nb_read_frames.as_ref());
    let rates = [&stream.avg_frame_rate, &stream.r_frame_rate];
    let rate = rates.into_iter().flatten().find_map(|rate| fraction(rate));
    Ok((count.and_then(|count| count.parse().ok()).unwrap_or(0), rate))
}

/// The value of a fraction such as `30000/1001`, where it is a number above 0.
fn fraction(text: &str) -> Option<f64> {
    let (above, below) = text.split_once('/')?;
    let value = above.parse::<f64>().ok()? / below.parse::<f64>().ok()?;
    (value.is_finite() && value > 1e-6).then_some(value)
}

/// The frames of these numbers, which ascend, as far as they can be decoded, and the first error of ffmpeg.
fn pick(path: &Path, numbers: &[usize]) -> Result<(Vec<Rgb>, String), Error> {
    let (frames, said) = pick_with(path, numbers, "-fps_mode")?;
    // Before 5.1, the option had another name.
    if frames.is_empty() && said.contains("fps_mode") { pick_with(path, numbers, "-vsync") } else { Ok((frames, said)) }
}

fn pick_with(path: &Path, numbers: &[usize], every_frame_once: &str) -> Result<(Vec<Rgb>, String), Error> {
    let fail = |reason: String| Error::Video { path: path.to_owned(), reason };
    let chosen: Vec<String> = numbers.iter().map(|number| format!("eq(n,{number})")).collect();
    let child = FfmpegCommand::new()
        .arg("-nostdin")
        .args(["-format_whitelist", FORMATS, "-protocol_whitelist", "file"])
        // If size or format change midway, the count of frames goes on, and frames are scaled to the first size, as in decord.
        .args(["-reinit_filter", "0"])
        .input(local(path))
        .map("0:V:0")
        .filter(format!("select='{}'", chosen.join("+")))
        .args([every_frame_once, "passthrough"])
        .frames(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
        // Frames come one after another, each with its own size. The wrapper's own reading of frames is not used: it
        // waits for ever for videos whose rate ffmpeg prints as \"1k\".
        .args(["-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"])
        .spawn()
        .map_err(|error| not_there(path, "ffmpeg", &error))?;
    let mut child = Running(child);
    let (Some(mut stdout), Some(stderr)) = (child.0.take_stdout(), child.0.take_stderr()) else {
        return Err(fail("ffmpeg cannot be heard".to_owned()));
    };
    let complaint = std::thread::spawn(move || first_complaint(stderr));
    let mut bytes = Vec::new();
    stdout.read_to_end(&mut bytes).map_err(Error::io(path, "ffmpeg's frames cannot be read"))?;
    let frames = ppm_images(&bytes).ok_or_else(|| fail("ffmpeg gave something else than images".to_owned()))?;
    Ok((frames, complaint.join().unwrap_or_default()))
}

/// A running program that is killed when its reader is dropped.
struct Running(FfmpegChild);

impl Drop for Running {
    fn drop(&mut self) {
        // A program that has ended cannot be killed, and need not be.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first error in ffmpeg's output. All of the output is read, so that ffmpeg never waits.
fn first_complaint(stderr: impl Read) -> String {
    let mut first = String::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let level = ["[error]", "[fatal]"].iter().find_map(|level| line.split_once(level));
        if let Some((_, text)) = level.filter(|_| first.is_empty()) {
            text.trim().chars().take(300).collect::<String>().clone_into(&mut first);
        }
    }
    first
}

/// Reads binary PPM images, one after another; one that is cut short at the end is left out. `None` for anything else.
fn ppm_images(mut bytes: &[u8]) -> Option<Vec<Rgb>> {
    let mut images = Vec::new();
    while !bytes.is_empty() {
        // "P6\n<width> <height>\n255\n"
        let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
        let [Some(magic), Some(size), Some(most), Some(rest)] = std::array::from_fn(|_| lines.next()) else { break };
        let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
        let (width, height) = (width.parse::<usize>().ok()?, height.parse::<usize>().ok()?);
        (magic == b"P6" && most == b"255").then_some(())?;
        let Some((data, after)) = rest.split_at_checked(width.checked_mul(height)?.checked_mul(3)?) else { break };
        images.push(Rgb { width, height, data: data.to_vec() });
        bytes = after;
    }
    Some(images)
}

/// The name of a file in a form that ffmpeg takes neither for an option nor for an address.
fn local(path: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    name
}

/// Checks, before a run that needs both programs, that they can be started.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    for (name, program) in [("ffprobe", ffprobe_path()), ("ffmpeg", ffmpeg_path())] {
        let started = Command::new(program).arg("-version").stdin(Stdio::null()).output();
        started.map_err(|error| not_there(path, name, &error))?;
    }
    Ok(())
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
