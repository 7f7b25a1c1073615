//! A goodbye on Ctrl-C: what was done stays, and how to go on.

use std::sync::{Mutex, PoisonError};

use super::workers::is_worker;

/// The exit code of a program that was interrupted, as shells give it.
const INTERRUPTED: i32 = 130;

/// The sentence that is printed.
static GOODBYE: Mutex<Option<String>> = Mutex::new(None);

/// Ends the program on Ctrl-C with a line on stderr. Answers are written as they come, so that nothing is lost.
pub(super) fn say_goodbye_on_interrupt() {
    // Not on a hang-up, which `nohup` lets a run survive. Without a handler, Ctrl-C ends the program as it ends others.
    let _ = ctrlc::set_handler(|| {
        // Workers end with the process that started them, which speaks for all.
        if !is_worker() {
            let goodbye = GOODBYE.lock().unwrap_or_else(PoisonError::into_inner).take();
            say!("\ninterrupted{}", goodbye.map_or_else(String::new, |text| format!(": {text}")));
        }
        std::process::exit(INTERRUPTED);
    });
}

/// Sets what is said on Ctrl-C after `interrupted`.
pub(super) fn goodbye(text: String) {
    *GOODBYE.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
}
