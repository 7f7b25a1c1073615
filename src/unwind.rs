//! Libraries that panic on damaged files.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    /// Whether panics of this thread are expected, and are to print nothing.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `read`, and returns its value; `None` if it panics. `read` runs a library over a user's file: a damaged file
/// must end in a sentence with the file's name, and some readers panic on it.
pub(crate) fn guarded<T>(read: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
    let before = QUIET.replace(true);
    // After a panic the state of the reader is thrown away.
    let found = catch_unwind(AssertUnwindSafe(read)).ok();
    QUIET.set(before);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_nothing() {
        assert_eq!(guarded(|| 1), Some(1));
        let numbers: Vec<u8> = Vec::new();
        assert_eq!(guarded(|| numbers[0]), None);
    }
}
