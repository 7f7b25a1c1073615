//! A job on every backend.

#![allow(unreachable_pub, reason = "tests of another package include this file")]

use secateur_backends::{BACKENDS, BackendError, Job, run};

/// Runs `job` on every backend that is compiled in; CUDA without a GPU is passed over, unless `SECATEUR_TEST_CUDA` is set.
pub fn on_every_backend<J: Job + Clone>(job: &J) -> Vec<J::Output> {
    let mut outputs = Vec::new();
    let must_have_cuda = std::env::var_os("SECATEUR_TEST_CUDA").is_some();
    let has_cuda = BACKENDS.iter().any(|backend| backend.name == "cuda" && backend.compiled);
    assert!(has_cuda || !must_have_cuda, "CUDA is not compiled in");
    for backend in BACKENDS.iter().filter(|backend| backend.compiled) {
        let start = std::time::Instant::now();
        match run(backend.name, job.clone()) {
            Ok(output) => {
                let test = std::thread::current();
                eprintln!("{} {}: {:.1?}", test.name().unwrap_or_default(), backend.name, start.elapsed());
                outputs.push(output);
            }
            Err(BackendError::NoDevice { name: "cuda", reason, .. }) if !must_have_cuda => {
                eprintln!("cuda: none{reason}");
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(!outputs.is_empty(), "no backend ran");
    outputs
}
