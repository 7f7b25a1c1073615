//! What this program is: its version, and the commit that it was built from.

/// The version, with the commit where the program was built in a checkout: `0.1.0 (b894182d01)`.
pub(in crate::cli) fn version() -> String {
    let version = env!("CARGO_PKG_VERSION");
    option_env!("SECATEUR_COMMIT").map_or_else(|| version.to_owned(), |commit| format!("{version} ({commit})"))
}
