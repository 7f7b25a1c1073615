//! Checkpoints from a hub: `HF_ENDPOINT`, `HF_HOME`, `HF_TOKEN`, offline mode, and what can go wrong on the way.

use std::{path::Path, time::Duration};

use crate::common::{
    CLIP, LAYOUTS, fixture,
    hub::{COMMIT, Fault, Hub},
};
use assert_cmd::Command;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const ID: &str = "someone/tiny-llava-hf";
const SHARD: &str = "model-00001-of-00002.safetensors";

/// A hub with the tiny checkpoint in llava-hf's layout, and an empty cache.
fn hub() -> (Hub, TempDir) {
    let hub = Hub::start();
    hub.add_folder(ID, &fixture(LAYOUTS[1]));
    hub.add(ID, "README.md", b"not to be fetched".to_vec());
    (hub, tempfile::tempdir().unwrap())
}

fn secateur(hub: &str, home: &Path, environment: &[(&str, &str)], args: &[&str]) -> (i32, String, String) {
    let mut command = Command::cargo_bin("secateur").unwrap();
    for name in ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "TRANSFORMERS_OFFLINE"] {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", hub).env("HF_HOME", home).envs(environment.iter().copied()).args(args);
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn ask(hub: &str, home: &Path, environment: &[(&str, &str)]) -> (i32, String, String) {
    let boat = fixture("tiny-llava-1.5/images/boat_123x90.png");
    let args = ["ask", boat.to_str().unwrap(), "What?", "--model", ID, "--tokens", "9", "--max-new-tokens", "2"];
    secateur(hub, home, environment, &args)
}

fn snapshot(home: &Path) -> std::path::PathBuf {
    home.join("hub/models--someone--tiny-llava-hf/snapshots").join(COMMIT)
}

#[test]
fn a_model_is_fetched_once_and_then_needs_no_hub() {
    let (hub, home) = hub();
    let (code, answer, stderr) = ask(&hub.endpoint, home.path(), &[]);
    assert_eq!(code, 0, "{stderr}");
    assert!(snapshot(home.path()).join(SHARD).is_file());
    assert!(!snapshot(home.path()).join("README.md").exists());
    hub.requests();
    let (code, again, _) = ask(&hub.endpoint, home.path(), &[]);
    assert_eq!((code, again), (0, answer.clone()));
    assert_eq!(hub.requests(), Vec::<String>::new(), "everything was there");
    let (code, offline, _) = ask("http://127.0.0.1:9", home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!((code, offline), (0, answer));
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    let (hub, home) = hub();
    let path = format!("{ID}/{SHARD}");
    // As often as it is tried again in one run.
    hub.fail(&path, &[Fault::Cut(1_000_000)]);
    hub.fail(&path, &[Fault::Status(500); 5]);
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(ID) && stderr.contains(SHARD) && stderr.contains("status 500"), "{stderr}");
    assert!(!snapshot(home.path()).join(SHARD).exists());
    hub.requests();
    let (code, stdout, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    assert!(Path::new(stdout.trim()).join(SHARD).is_file(), "{stdout}");
    let asked = hub.requests();
    let asked: Vec<_> = asked.iter().filter(|line| line.contains(SHARD) && !line.ends_with(" 0-0")).collect();
    assert!(asked.len() == 3 && asked.iter().all(|line| line.ends_with(" 1000000-")), "{asked:?}");
    assert_eq!(ask(&hub.endpoint, home.path(), &[]).0, 0);
}

#[test]
fn a_connection_that_breaks_once_is_taken_up_in_the_same_run() {
    let (hub, home) = hub();
    hub.fail(&format!("{ID}/{SHARD}"), &[Fault::Cut(1_000_000)]);
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    let asked = hub.requests();
    assert!(asked.iter().any(|line| line.contains(SHARD) && line.ends_with(" 1000000-")), "{asked:?}");
}

#[test]
fn a_connection_that_breaks_again_and_again_gets_there() {
    let (hub, home) = hub();
    hub.fail(&format!("{ID}/{SHARD}"), &[Fault::Cut(100_000); 6]);
    hub.fail(&format!("{ID}/config.json"), &[Fault::Probe(503)]);
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    let asked = hub.requests();
    assert!(asked.iter().any(|line| line.contains(SHARD) && line.ends_with(" 600000-")), "{asked:?}");
}

#[test]
fn a_connection_on_which_nothing_comes_is_given_up() {
    let (hub, home) = hub();
    hub.slow(&format!("{ID}/{SHARD}"), Duration::from_secs(60));
    let environment = [("HF_HUB_DOWNLOAD_TIMEOUT", "1")];
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &environment, &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(SHARD) && stderr.contains("has sent nothing for 1 s"), "{stderr}");
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let (hub, home) = hub();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (code, _, stderr) = secateur(&hub.endpoint, &file, &[], &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains(file.to_str().unwrap()) && stderr.contains("HF_HOME"), "{stderr}");
}

#[test]
fn the_cache_is_where_other_tools_have_it() {
    let (hub, home) = hub();
    let path = home.path().to_str().unwrap();
    let inside = |folder: &str| home.path().join(folder).join("models--someone--tiny-llava-hf").is_dir();
    for (environment, folder) in [
        ([("HF_HOME", ""), ("XDG_CACHE_HOME", &format!("{path}/xdg"))], "xdg/huggingface/hub"),
        ([("HF_HOME", "~/own"), ("HOME", path)], "own/hub"),
        ([("HF_HUB_CACHE", &format!("{path}/cache")), ("XDG_CACHE_HOME", "/none")], "cache"),
    ] {
        let (code, _, stderr) = secateur(&hub.endpoint, Path::new("/none"), &environment, &["pull", ID]);
        assert_eq!((code, inside(folder)), (0, true), "{folder}: {stderr}");
    }
}

#[cfg(unix)]
#[test]
fn files_that_nobody_reads_may_be_missing_in_the_cache() {
    let (hub, home) = hub();
    assert_eq!(ask(&hub.endpoint, home.path(), &[]).0, 0);
    // As it is after someone removed the blob to save space.
    std::os::unix::fs::symlink("../../blobs/gone", snapshot(home.path()).join("tf_model.h5")).unwrap();
    let (code, _, stderr) = ask("http://127.0.0.1:9", home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn damaged_contents_are_fetched_again_and_never_kept() {
    for fault in [Fault::Flip, Fault::Short(500)] {
        let (hub, home) = hub();
        hub.fail(&format!("{ID}/{SHARD}"), &[fault]);
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
        assert_eq!(code, 0, "{fault:?}: {stderr}");

        let (hub, home) = self::hub();
        hub.fail(&format!("{ID}/{SHARD}"), &[fault; 9]);
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
        assert_eq!(code, 1, "{fault:?}");
        assert!(stderr.contains("checksum"), "{fault:?}: {stderr}");
        assert!(!snapshot(home.path()).join(SHARD).exists());
    }
}

/// As a process leaves it that is killed between download and checksum: contents have their name only once they are checked.
#[test]
fn what_nobody_checked_yet_has_no_name() {
    let (hub, home) = hub();
    let contents = std::fs::read(fixture(LAYOUTS[1]).join(SHARD)).unwrap();
    let etag: String = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
    let blobs = home.path().join("hub/models--someone--tiny-llava-hf/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let mut damaged = contents.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(blobs.join(format!("{etag}.part")), damaged).unwrap();
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(std::fs::read(snapshot(home.path()).join(SHARD)).unwrap(), contents);
}

#[test]
fn a_file_that_another_process_downloads_is_waited_for() {
    let (hub, home) = hub();
    // Long enough for the second process to start, however busy the machine is.
    hub.slow(&format!("{ID}/{SHARD}"), Duration::from_secs(6));
    let is_contents = |line: &String| line.contains(SHARD) && !line.ends_with(" 0-0");
    let mut asked = Vec::new();
    let (first, second) = std::thread::scope(|scope| {
        let first = scope.spawn(|| secateur(&hub.endpoint, home.path(), &[], &["pull", ID]));
        while !asked.iter().any(is_contents) {
            std::thread::sleep(Duration::from_millis(10));
            asked.extend(hub.requests());
        }
        let second = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
        (first.join().unwrap(), second)
    });
    assert_eq!((first.0, second.0), (0, 0), "{first:?} {second:?}");
    assert!(second.2.contains("waiting for another process"), "{second:?}");
    asked.extend(hub.requests());
    assert_eq!(asked.iter().filter(|line| is_contents(line)).count(), 1, "{asked:?}");
}

#[test]
fn what_is_left_of_a_download_and_cannot_be_resumed_is_begun_anew() {
    let contents = std::fs::read(fixture(LAYOUTS[1]).join(SHARD)).unwrap();
    let etag: String = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
    // All of the file, without its name yet; and more than there is of it.
    for left in [contents.clone(), [&contents[..], b"more"].concat()] {
        let (hub, home) = hub();
        let blobs = home.path().join("hub/models--someone--tiny-llava-hf/blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        std::fs::write(blobs.join(format!("{etag}.part")), left).unwrap();
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(std::fs::read(snapshot(home.path()).join(SHARD)).unwrap(), contents);
    }
}

#[test]
fn a_hub_that_cannot_resume_starts_again() {
    let (hub, home) = hub();
    hub.fail(&format!("{ID}/{SHARD}"), &[Fault::Cut(1_000_000), Fault::IgnoreRange]);
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(ask(&hub.endpoint, home.path(), &[]).0, 0);
}

#[test]
fn tokens_are_sent_and_missing_ones_asked_for() {
    let (hub, home) = hub();
    hub.want_token("hf_secret");
    let (code, _, stderr) = ask(&hub.endpoint, home.path(), &[]);
    assert_eq!(code, 1);
    assert!(stderr.contains("HF_TOKEN"), "{stderr}");
    assert_eq!(ask(&hub.endpoint, home.path(), &[("HF_TOKEN", "hf_secret")]).0, 0);
}

#[test]
fn what_cannot_be_had_gets_one_sentence() {
    let (hub, home) = hub();
    let refuse = |endpoint: &str, environment: &[(&str, &str)], id: &str, expected: &str| {
        let (code, stdout, stderr) = secateur(endpoint, home.path(), environment, &["pull", id]);
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert_eq!(stderr.trim().lines().count(), 1, "{stderr}");
        for part in ["error: ", id, "--model demo", expected] {
            assert!(stderr.contains(part), "`{part}` is missing: {stderr}");
        }
    };
    refuse(&hub.endpoint, &[], "someone/else", "not on the hub");
    refuse("http://127.0.0.1:9", &[], ID, "cannot be reached");
    refuse("nonsense", &[], ID, "no http address");
    refuse(&hub.endpoint, &[("HF_HUB_OFFLINE", "1")], ID, "HF_HUB_OFFLINE");
    hub.add("someone/texts", "README.md", b"nothing else".to_vec());
    refuse(&hub.endpoint, &[], "someone/texts", "README.md");
}

/// The token, from the environment or a saved login, is for the endpoint's scheme, host and port alone.
#[test]
fn a_token_is_sent_to_no_other_host() {
    for (status, weights_only) in [(302, true), (307, true), (301, false), (308, false)] {
        let (hub, home) = hub();
        let (other, _) = self::hub();
        hub.redirect(status, &other, weights_only);
        let token = [("HF_TOKEN", "hf_secret")];
        let (code, _, stderr) = ask(&hub.endpoint, home.path(), &token);
        assert_eq!(code, 0, "{status}: {stderr}");
        assert!(!hub.signed().is_empty() && other.signed().is_empty(), "{status}: {:?}", other.signed());
        assert!(!other.requests().is_empty(), "{status}");
    }
    let (hub, home) = hub();
    let (other, _) = self::hub();
    hub.redirect(308, &other, false);
    std::fs::write(home.path().join("token"), "hf_saved\n").unwrap();
    let (code, _, stderr) = ask(&hub.endpoint, home.path(), &[]);
    assert_eq!((code, other.signed()), (0, Vec::new()), "{stderr}");
    assert!(!hub.signed().is_empty());
}

#[test]
fn a_model_that_is_not_read_costs_no_download() {
    let (hub, home) = hub();
    let config = std::fs::read_to_string(fixture(LAYOUTS[1]).join("config.json")).unwrap();
    let mistral = config.replace("\"model_type\": \"llama\"", "\"model_type\": \"mistral\"");
    assert_ne!(config, mistral);
    hub.add(ID, "config.json", mistral.into_bytes());
    for args in [&["pull", ID][..], &["bench", "--model", ID], &["eval", "demo", "--model", ID]] {
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], args);
        assert_eq!(code, 1, "{stderr}");
        assert!(stderr.contains("LLaVA-1.5 on Mistral"), "{stderr}");
        let asked = hub.requests();
        assert!(!asked.iter().any(|line| line.contains("safetensors ")), "{asked:?}");
    }
}

#[test]
fn a_hub_that_asks_to_wait_is_waited_for() {
    let (hub, home) = hub();
    hub.limit(Duration::from_secs(2), "2");
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("asks to wait 2 seconds"), "{stderr}");
    let (hub, home) = self::hub();
    hub.limit(Duration::from_secs(60), "7300");
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("come again in 3 hours") && stderr.contains("HF_TOKEN raises the limit"), "{stderr}");
}

#[test]
fn a_part_of_a_repository_in_the_cache_is_called_that() {
    let (hub, home) = hub();
    assert_eq!(secateur(&hub.endpoint, home.path(), &[], &["pull", ID]).0, 0);
    std::fs::remove_file(snapshot(home.path()).join(SHARD)).unwrap();
    let (code, _, stderr) = ask("http://127.0.0.1:9", home.path(), &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(code, 1, "{stderr}");
    for part in ["only in part", SHARD, "HF_HUB_OFFLINE forbids"] {
        assert!(stderr.contains(part), "`{part}`: {stderr}");
    }
}

/// What a hub says becomes names of files and folders: none of them may lead out of the cache.
#[test]
fn a_hub_that_lies_writes_nowhere_else() {
    let victim = |home: &Path| home.join("victim");
    for (etag, commit, listed) in [
        (Some("../../../victim"), None, None),
        (Some("/tmp/secateur-victim"), None, None),
        (Some("no checksum"), None, None),
        (None, Some("../../../../victim"), None),
        (None, None, Some("../../../../victim.safetensors")),
        (None, None, Some("/victim.safetensors")),
    ] {
        let (hub, home) = hub();
        std::fs::write(victim(home.path()), "untouched").unwrap();
        hub.lie(etag, commit, listed);
        let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
        // Names with a folder in them are none that a checkpoint has.
        assert_eq!(code, i32::from(listed.is_none()), "{etag:?} {commit:?} {listed:?}: {stderr}");
        assert!(listed.is_some() || stderr.contains("does not answer like a hub"), "{stderr}");
        assert_eq!(std::fs::read_to_string(victim(home.path())).unwrap(), "untouched");
        assert!(!Path::new("/tmp/secateur-victim").exists());
    }
}

/// A Git LFS pointer in place of every weight.
#[test]
fn a_hub_that_serves_pointers_is_told() {
    let (hub, home) = hub();
    hub.add(ID, SHARD, b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n".to_vec());
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("serves a Git LFS pointer") && stderr.contains(SHARD), "{stderr}");
    assert!(!snapshot(home.path()).join(SHARD).exists());
}

/// One that cuts the connection after a few bytes, whenever it is asked.
#[test]
fn a_connection_that_gets_nowhere_is_given_up() {
    let (hub, home) = hub();
    hub.fail(&format!("{ID}/{SHARD}"), &[Fault::Cut(10); 30]);
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", ID]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("again and again"), "{stderr}");
}

#[test]
fn the_tower_that_a_checkpoint_names_is_fetched_with_it() {
    let (hub, home) = hub();
    let folder = tempfile::tempdir().unwrap();
    crate::common::copy_folder(&fixture(LAYOUTS[0]), folder.path());
    let config = folder.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("../clip-vit-tiny-patch14-336", "openai/clip-tiny")).unwrap();
    hub.add_folder("someone/original", folder.path());
    hub.add_folder("openai/clip-tiny", &fixture(CLIP));
    let (code, _, stderr) = secateur(&hub.endpoint, home.path(), &[], &["pull", "someone/original"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(
        home.path().join("hub/models--openai--clip-tiny/snapshots").join(COMMIT).join("pytorch_model.bin").is_file()
    );
}
