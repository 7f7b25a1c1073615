//! Video files, through the `ffmpeg` and `ffprobe` programs: whatever they read is read.
//!
//! Frames are counted as decord counts them for the official code, packet by packet without decoding, and are then picked by
//! their numbers while ffmpeg decodes. Where packets give fewer frames than there are of them (a file that is cut short, a clip
//! that was cut without encoding it anew), the frames that can be seen are counted instead; decord keeps its count there.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read},
    path::Path,
    process::{Command, Stdio},
};

use ffmpeg_sidecar::{child::FfmpegChild, command::FfmpegCommand, ffprobe::ffprobe_path, paths::ffmpeg_path};
use serde::Deserialize;

use super::{check_frame, distinct, frame_numbers, repeated};
use crate::{Error, image::Rgb};

/// The formats that are videos. ffmpeg reads others, too: it draws text files as pictures of text, and playlists lead to other files.
const FORMATS: &str = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpegtsraw,mpeg,mpegvideo,m4v,h264,hevc,av1,ivf,obu,flv,asf,ogg,\
                       yuv4mpegpipe,gif,dv,vob,wtv,rm,mxf,nut,apng,swf,amv,gxf,bink,smk,vc1,h263,h261,mjpeg";

/// What ffprobe says of a file.
#[derive(Default, Deserialize)]
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

/// Looks whether there is a video in a file, without counting its frames.
pub(super) fn probe(path: &Path) -> Result<(), Error> {
    count(path, Count::None).map(|_| ())
}

/// How frames are counted.
#[derive(Clone, Copy)]
enum Count {
    /// Not at all.
    None,
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
            return Ok((numbers.clone(), repeated(&numbers, frames)));
        }
        reason = format!("ffmpeg gave {} of {} frames; {said}", frames.len(), chosen.len());
    }
    Err(fail(if reason.is_empty() { "no frame in it can be decoded".to_owned() } else { reason }))
}

/// The frames of the first video stream; a cover picture is none.
fn count(path: &Path, how: Count) -> Result<usize, Error> {
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
        .arg(format!("stream=width,height,{entry}"))
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
    Ok(count.and_then(|count| count.parse().ok()).unwrap_or(0))
}

/// The frames of these numbers, which ascend, as far as they can be decoded, and the first that ffmpeg had to complain about.
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
        // Where size or format change midway, frames are counted on, and scaled to the first size, as decord does.
        .args(["-reinit_filter", "0"])
        .input(local(path))
        .map("0:V:0")
        .filter(format!("select='{}'", chosen.join("+")))
        .args([every_frame_once, "passthrough"])
        .frames(u32::try_from(numbers.len()).unwrap_or(u32::MAX))
        // One after another, each with its own size. Not the wrapper's own reading of frames: it waits for ever for videos whose
        // rate ffmpeg prints as \"1k\".
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
    let frames = ppm_pictures(&bytes).ok_or_else(|| fail("ffmpeg gave something else than pictures".to_owned()))?;
    Ok((frames, complaint.join().unwrap_or_default()))
}

/// A program that does not outlive its reader.
struct Running(FfmpegChild);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first error among what ffmpeg says, all of which is read, so that it never waits.
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

/// Binary PPM pictures, one after another; one that is cut short at the end is left out. `None` for anything else.
fn ppm_pictures(mut bytes: &[u8]) -> Option<Vec<Rgb>> {
    let mut pictures = Vec::new();
    while !bytes.is_empty() {
        // "P6\n<width> <height>\n255\n"
        let mut lines = bytes.splitn(4, |&byte| byte == b'\n');
        let [Some(magic), Some(size), Some(most), Some(rest)] = std::array::from_fn(|_| lines.next()) else { break };
        let (width, height) = std::str::from_utf8(size).ok()?.split_once(' ')?;
        let (width, height) = (width.parse::<usize>().ok()?, height.parse::<usize>().ok()?);
        (magic == b"P6" && most == b"255").then_some(())?;
        let Some((data, after)) = rest.split_at_checked(width.checked_mul(height)?.checked_mul(3)?) else { break };
        pictures.push(Rgb { width, height, data: data.to_vec() });
        bytes = after;
    }
    Some(pictures)
}

/// The name of a file that ffmpeg takes for nothing else: no option, no address.
fn local(path: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from("file:");
    name.push(path);
    name
}

/// Whether both programs can be started; before a run that needs them.
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
