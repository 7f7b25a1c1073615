//! Videos of every kind, made on the spot, against ffmpeg's own selection of frames; and what is no video.
//!
//! Where the `ffmpeg` program is not installed, the tests that need it say so and pass; `SECATEUR_TEST_FFMPEG=1` makes them fail.

use std::{path::Path, process::Command};

use crate::common::fixture;
use image::{Delay, Frame, RgbaImage, codecs::gif::GifEncoder};
use secateur::{
    Error,
    video::{FrameRule, Media, Video},
};
use serde_json::Value;

pub(super) const MODEL: &str = "tiny-video-llava/Video-LLaVA-tiny";

pub(super) fn ffmpeg_is_there() -> bool {
    let there = ["ffmpeg", "ffprobe"].iter().all(|name| Command::new(name).arg("-version").output().is_ok());
    assert!(there || std::env::var_os("SECATEUR_TEST_FFMPEG").is_none(), "ffmpeg is not installed");
    if !there {
        eprintln!("ffmpeg is not installed: this test did not run");
    }
    there
}

fn ffmpeg(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-y"]).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// 23 different frames, in the format that `path` names.
pub(super) fn clip(path: &Path, codec: &[&str]) {
    let path = path.to_str().unwrap();
    ffmpeg(&[&["-f", "lavfi", "-i", "testsrc=size=96x72:rate=10:duration=2.3"], codec, &[path]].concat());
}

/// Frame `number` as ffmpeg gives it.
fn frame(path: &Path, number: usize) -> Vec<u8> {
    let (path, select) = (path.to_str().unwrap(), format!("select=eq(n\\,{number})"));
    let pick = ["-i", path, "-vf", &select, "-fps_mode", "passthrough", "-frames:v", "1"];
    ffmpeg(&[&pick[..], &["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]].concat())
}

fn reason(path: &Path) -> String {
    Video::read(path, FrameRule::Count(8)).unwrap_err().to_string()
}

pub(super) fn secateur(arguments: &[&str]) -> std::process::Output {
    assert_cmd::Command::cargo_bin("secateur").unwrap().args(arguments).output().unwrap()
}

#[test]
fn every_format_gives_the_frames_that_ffmpeg_selects() {
    if !ffmpeg_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let formats: [(&str, &[&str]); 4] = [
        ("a.mp4", &["-c:v", "libx264", "-bf", "2", "-g", "7", "-pix_fmt", "yuv420p"]),
        ("a.webm", &["-c:v", "libvpx", "-b:v", "500k"]),
        ("a.avi", &["-c:v", "mpeg4", "-q:v", "3"]),
        ("a.gif", &[]),
    ];
    for (name, codec) in formats {
        let path = folder.path().join(name);
        clip(&path, codec);
        let video = Video::read(&path, FrameRule::Count(8)).unwrap();
        assert_eq!(video.numbers, [0, 3, 6, 9, 12, 15, 18, 22], "{name}");
        for (number, found) in video.numbers.iter().zip(&video.frames) {
            assert_eq!((found.width, found.height), (96, 72), "{name}");
            assert!(found.data == frame(&path, *number), "{name}: frame {number} is another");
        }
    }
}

#[test]
fn rates_titles_and_names_are_no_obstacle() {
    if !ffmpeg_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // ffmpeg prints this rate as "1k", which some readers of its output wait for ever about.
    let fast = folder.path().join("fast.mkv");
    let source = ["-f", "lavfi", "-i", "testsrc=size=96x72:rate=1000:duration=0.03"];
    ffmpeg(&[&source[..], &["-c:v", "libx264", "-metadata", "title=Stream mapping:", fast.to_str().unwrap()]].concat());
    let video = Video::read(&fast, FrameRule::Count(8)).unwrap();
    assert_eq!(video.numbers.last(), Some(&29));
    assert!(video.frames[7].data == frame(&fast, 29));
    assert_eq!([video.times[0], video.times[7]].map(|time| time.as_millis()), [0, 29]);
    for name in ["-i.mkv", "it's 100% a:b, [x].mkv", "http:.mkv"] {
        let path = folder.path().join(name);
        std::fs::copy(&fast, &path).unwrap();
        assert_eq!(Video::read(&path, FrameRule::Count(8)).unwrap().frames, video.frames, "{name}");
    }
    // ffmpeg knows videos by what they are.
    let unnamed = folder.path().join("unnamed");
    std::fs::copy(&fast, &unnamed).unwrap();
    assert!(matches!(Media::read(&unnamed, Some(FrameRule::Count(8))), Ok((Media::Video(_), false))));
}

#[test]
fn frames_are_counted_on_where_the_size_changes() {
    if !ffmpeg_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let part = |name: &str, source: &str| {
        let path = folder.path().join(name);
        ffmpeg(&[
            "-f",
            "lavfi",
            "-i",
            source,
            "-frames:v",
            "20",
            "-c:v",
            "libx264",
            "-pix_fmt",
            "yuv420p",
            path.to_str().unwrap(),
        ]);
        path
    };
    let (small, large) = (part("a.ts", "testsrc=size=64x48:rate=10"), part("b.ts", "testsrc2=size=96x80:rate=10"));
    let both = folder.path().join("both.ts");
    std::fs::write(&both, [std::fs::read(&small).unwrap(), std::fs::read(&large).unwrap()].concat()).unwrap();
    let video = Video::read(&both, FrameRule::Count(8)).unwrap();
    assert_eq!(video.numbers, [0, 5, 11, 16, 22, 27, 33, 39]);
    assert!(video.frames[3].data == frame(&small, 16));
    let scaled = ["-i", large.to_str().unwrap(), "-vf", "select=eq(n\\,13),scale=64:48", "-frames:v", "1"];
    let expected = ffmpeg(&[&scaled[..], &["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]].concat());
    let differs = video.frames[6].data.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert_eq!(video.frames[6].data.len(), expected.len());
    assert!(differs.is_some_and(|differs| differs < 9), "{differs:?}");
}

#[test]
fn the_clip_of_the_goldens_gives_the_frames_that_decord_gave() {
    if !ffmpeg_is_there() {
        return;
    }
    let read = |name: &str| Video::read(&fixture("tiny-video-llava/video").join(name), FrameRule::Count(8)).unwrap();
    let (clip, decord) = (read("clip.mp4"), read("decoded"));
    assert_eq!(clip.numbers, [0, 2, 5, 8, 10, 13, 16, 19]);
    assert!(clip.frames == decord.frames);
}

#[test]
fn a_file_that_is_cut_short_gives_what_is_there() {
    if !ffmpeg_is_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("a.mkv"), folder.path().join("cut.mkv"));
    clip(&whole, &["-c:v", "libx264", "-pix_fmt", "yuv420p"]);
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let video = Video::read(&cut, FrameRule::Count(8)).unwrap();
    let last = video.numbers[7];
    assert!((5..22).contains(&last), "{last}");
    assert!(video.frames[7].data == frame(&cut, last));
}

#[test]
fn what_holds_no_video_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("empty.mp4"), "").unwrap();
    assert!(reason(&path("empty.mp4")).ends_with("the file has 0 bytes, which is no video"));
    assert!(reason(&path("nowhere.mp4")).contains("cannot be read"));
    std::fs::create_dir(path("none")).unwrap();
    assert!(reason(&path("none")).contains("no image in this folder"));
    std::fs::write(path("text.gif"), "no image").unwrap();
    assert!(reason(&path("text.gif")).contains("not a GIF"));
    if !ffmpeg_is_there() {
        return;
    }
    std::fs::write(path("text.mp4"), "no video at all").unwrap();
    assert!(reason(&path("text.mp4")).contains("ffmpeg cannot read it"), "{}", reason(&path("text.mp4")));
    let sound = path("sound.mp4");
    ffmpeg(&["-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac", sound.to_str().unwrap()]);
    assert!(reason(&sound).ends_with("there is no video in this file"), "{}", reason(&sound));
}

#[test]
fn without_ffmpeg_a_sentence_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    std::fs::write(&path, "anything").unwrap();
    let mut command = assert_cmd::Command::cargo_bin("secateur").unwrap();
    let command = command.env("PATH", "").args(["ask", "--tokens", "26", "--model"]).arg(fixture(MODEL));
    let output = command.arg(&path).arg("What happens?").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("is not on this machine; install ffmpeg, or give a GIF or a folder of frames"), "{stderr}");
}

/// Two frames, the second drawn over the left half of the first.
pub(super) fn gif(path: &Path, frames: usize) {
    let mut encoder = GifEncoder::new(std::fs::File::create(path).unwrap());
    for i in 0..frames {
        let colour = if i % 2 == 0 { [200, 0, 0, 255] } else { [0, 0, 200, 255] };
        let image = RgbaImage::from_pixel(40, 30, image::Rgba(colour));
        let delay = Delay::from_numer_denom_ms(500, 1);
        encoder.encode_frame(Frame::from_parts(image, 0, 0, delay)).unwrap();
    }
}

#[test]
fn a_short_video_repeats_frames_and_sizes_must_agree() {
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.gif");
    gif(&short, 2);
    let video = Video::read(&short, FrameRule::Count(8)).unwrap();
    assert_eq!(video.numbers, [0, 0, 0, 0, 0, 0, 0, 1]);
    assert_eq!([video.times[0], video.times[7]].map(|time| time.as_millis()), [0, 500]);
    assert_eq!(video.frames[0].data[..3], [200, 0, 0]);
    assert_eq!(video.frames[7].data[..3], [0, 0, 200]);
    // A GIF is an image to a model without videos, anything else with a video's name is refused.
    assert!(matches!(Media::read(&short, None), Ok((Media::Image(_), false))));
    assert!(matches!(Media::read(Path::new("a.mp4"), None), Err(Error::NoVideo { .. })));

    let frames = folder.path().join("frames");
    std::fs::create_dir(&frames).unwrap();
    std::fs::copy(fixture("tiny-llava-1.5/images/boat_123x90.png"), frames.join("1.png")).unwrap();
    std::fs::copy(fixture("tiny-llava-1.5/images/kitchen_85x120.png"), frames.join("2.png")).unwrap();
    assert!(reason(&frames).contains("frame 0 is 123×90 pixels and frame 1 is 85×120"), "{}", reason(&frames));
}

#[test]
fn images_and_videos_share_a_prompt() {
    let (model, frames) = (fixture(MODEL), fixture("tiny-video-llava/video/frames"));
    let (model, image) = (model.to_str().unwrap(), frames.join("frame_010.png"));
    let (frames, image) = (frames.to_str().unwrap(), image.to_str().unwrap());
    let ask = |media: &[&str], more: &[&str]| {
        let output = secateur(&[&["ask", "--json", "--max-new-tokens", "4", "--model", model], more, media].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str::<Value>(stdout.lines().last().unwrap()).unwrap()
    };
    let both = ask(&[image, frames, "What moves?"], &["--tokens", "26"]);
    assert_eq!(both["visual_tokens_before"], 256 + 8 * 257);
    assert_eq!(both["visual_tokens"], 26 + 8 * 26);
    let marked = ask(&[frames, image, "<video> and <image>: what moves?"], &["--tokens", "26", "--method", "datp"]);
    assert_eq!(marked["visual_tokens"], 9 * 26);
    // FastV sees Video-LLaVA's own sequence, and drops from it inside the language model.
    let inside = ask(&[frames, "What moves?"], &["--tokens", "26", "--method", "fastv"]);
    assert_eq!(inside["visual_tokens"], 8 * 26);
    let output = secateur(&["ask", "--model", model, image, frames, "<video> and <image>: what moves?"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("has a `<video>` where no video's turn is"));
    let output = secateur(&["ask", "--model", model, frames, "<image> what?"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 `<image>` placeholders for 8 image(s) and frames"));
}

#[test]
fn every_tower_method_prunes_frames_but_those_that_read_clips_text() {
    let (model, frames) = (fixture(MODEL), fixture("tiny-video-llava/video/frames"));
    let arguments =
        ["ask", "--method", "all", "--tokens", "26", "--max-new-tokens", "2", "--model", model.to_str().unwrap()];
    let output = secateur(&[&arguments[..], &[frames.to_str().unwrap(), "What moves?"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    for method in ["none", "fastervlm", "vispruner", "datp", "fastv", "random"] {
        assert!(stdout.contains(method), "{method}: {stdout}");
    }
    assert!(stderr.contains("LanguageBind's is another network"), "{stderr}");
}

#[test]
fn videos_are_refused_before_weights_are_read() {
    let frames = fixture("tiny-video-llava/video/frames");
    let model = fixture("tiny-llava-1.5/llava-v1.5-tiny");
    for command in ["ask", "trace"] {
        let media: &[&str] = match command {
            "ask" => &[frames.to_str().unwrap(), "What?"],
            _ => &["--video", frames.to_str().unwrap(), "--question", "What?"],
        };
        let output = secateur(&[&[command, "--tokens", "16", "--model", model.to_str().unwrap()], media].concat());
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("video, and this model sees images only"), "{stderr}");
    }
}

#[test]
fn the_conversion_without_attention_over_time_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"model_type": "video_llava", "text_config": {}}"#).unwrap();
    let frames = fixture("tiny-video-llava/video/frames");
    let output = secateur(&["ask", "--model", folder.path().to_str().unwrap(), frames.to_str().unwrap(), "What?"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("another network") && stderr.contains("LanguageBind/Video-LLaVA-7B"), "{stderr}");
}
