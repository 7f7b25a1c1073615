//! Tells the program from which commit it was built, where there is one.

use std::{path::Path, process::Command};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let log = Path::new(".git/logs/HEAD");
    if !log.is_file() {
        return;
    }
    println!("cargo:rerun-if-changed={}", log.display());
    let output = Command::new("git").args(["rev-parse", "--short=10", "HEAD"]).output();
    if let Ok(output) = output
        && output.status.success()
    {
        println!("cargo:rustc-env=SECATEUR_COMMIT={}", String::from_utf8_lossy(&output.stdout).trim());
    }
}
