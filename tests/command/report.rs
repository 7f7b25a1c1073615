//! `secateur report`: one page of finished runs, which asks the network for nothing.

use std::path::{Path, PathBuf};

use crate::common::fixture;

fn secateur(arguments: &[&str]) -> (bool, String) {
    let output = assert_cmd::Command::cargo_bin("secateur").unwrap().args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

/// Runs of the demo's first questions; at 4 tokens methods disagree.
fn runs(out: &Path, methods: &[&str]) -> Vec<PathBuf> {
    let out = out.to_str().unwrap();
    let eval = ["eval", "demo", "--model", "demo", "--limit", "12", "--tokens", "4", "--out", out, "--method"];
    for method in methods {
        let (success, stderr) = secateur(&[&eval[..], &[method]].concat());
        assert!(success, "{stderr}");
    }
    let mut folders: Vec<PathBuf> = std::fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

fn report(folders: &[PathBuf], out: &Path, more: &[&str]) -> (bool, String) {
    let folders: Vec<&str> = folders.iter().map(|folder| folder.to_str().unwrap()).collect();
    secateur(&[&["report", "--out", out.to_str().unwrap()], more, &folders[..]].concat())
}

#[test]
fn a_page_holds_charts_tables_and_what_methods_disagree_on() {
    let folder = tempfile::tempdir().unwrap();
    let (out, page) = (folder.path().join("runs"), folder.path().join("page"));
    let folders = runs(&out, &["none", "fastervlm", "random"]);
    let (success, stderr) = report(&folders, &page, &["--gallery", "2"]);
    assert!(success, "{stderr}");
    let html = std::fs::read_to_string(page.join("report.html")).unwrap();
    assert_eq!(html.matches("<svg").count(), 2, "scores by tokens and by time");
    assert_eq!(html.matches("class=\"question\"").count(), 2);
    assert_eq!(html.matches("<tr data-marks=").count(), 12);
    // An image, and what two methods keep of it, twice.
    assert_eq!(html.matches("src=\"data:image/jpeg;base64,").count(), 6);
    for text in [
        "fastervlm 4",
        "random 4",
        "<td>none</td>",
        "existence",
        "to the first token",
        "no pruning",
        "llava rules, 12 questions",
        "class=\"finding\">At 4 of ",
        "Beside no pruning, on the same questions",
        "right answer: <b>",
        "data-marks=\"",
        "✓ ",
        "✗ ",
        "class=\"question slide\" hidden",
    ] {
        assert!(html.contains(text), "{text}");
    }
    // Nothing is fetched: the only addresses name the language of drawings.
    let addresses = html.replace("http://www.w3.org/2000/svg", "").replace("http://www.w3.org/1999/xlink", "");
    for fetched in ["http://", "https://", "@import", "<script src", "<link"] {
        assert!(!addresses.contains(fetched), "{fetched}");
    }
    for file in ["demo-demo-tokens.svg", "demo-demo-tokens.png", "demo-demo-time.svg", "demo-demo-time.png"] {
        assert!(page.join(file).is_file(), "{file}");
    }
}

#[test]
fn without_its_checkpoint_a_run_has_no_gallery_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (out, page) = (folder.path().join("runs"), folder.path().join("page"));
    let folders = runs(&out, &["none", "random"]);
    for folder in &folders {
        let path = folder.join("config.json");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, config.replace("\"model\": \"demo\"", "\"model\": \"/nowhere/demo\"")).unwrap();
    }
    let (success, stderr) = report(&folders, &page, &[]);
    assert!(success && stderr.contains("has no gallery: the checkpoint is not there any more"), "{stderr}");
    let html = std::fs::read_to_string(page.join("report.html")).unwrap();
    assert!(html.contains("No images here: the checkpoint is not there any more"));
    // The runs know their times themselves.
    assert_eq!(html.matches("<svg").count(), 2);
    for folder in &folders {
        std::fs::remove_file(folder.join("times.jsonl")).unwrap();
    }
    assert!(report(&folders, &page, &[]).0);
    let html = std::fs::read_to_string(page.join("report.html")).unwrap();
    assert!(html.contains("No chart of times: the time of a run is not known"));
    assert_eq!(html.matches("<svg").count(), 1);
    assert!(!page.join("demo-demo-time.svg").exists());
}

#[test]
fn what_is_no_finished_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page");
    let (success, stderr) = report(&[fixture("mme")], &page, &[]);
    assert!(!success && stderr.contains("no run is in this folder"), "{stderr}");
    let folders = runs(&folder.path().join("runs"), &["none"]);
    std::fs::remove_file(folders[0].join("metrics.json")).unwrap();
    let (success, stderr) = report(&folders, &page, &[]);
    assert!(!success && stderr.contains("`secateur eval` finishes the run"), "{stderr}");
    assert!(!page.exists());
}
