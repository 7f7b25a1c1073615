//! What can be wrong with a checkpoint.

use std::path::PathBuf;

/// An error that names the file, what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// Neither a folder nor an id.
    #[error("`{id}` is no folder, and no id like `owner/name` on the hub; give one of them, or `demo`")]
    NoFolder {
        /// What was asked for.
        id: String,
    },
    /// Something that is neither in the cache nor to be had.
    #[error("`{id}` {reason}; {advice}")]
    Hub {
        /// What was asked for.
        id: String,
        /// Why it cannot be had.
        reason: String,
        /// What to do without it.
        advice: String,
    },
    /// A file that must be there is not.
    #[error("{path}: not found; {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// What it is for, and what to do.
        hint: String,
    },
    /// The file could not be read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what its name says, or is cut short.
    #[error("{path}: {reason}; the file is damaged or incomplete, fetch it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file is whole but holds something that is not read.
    #[error("{path}: {reason}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it holds.
        reason: String,
    },
    /// Names or shapes do not fit the model.
    #[error("{path}: the tensors do not fit the model\n{report}")]
    Mismatch {
        /// The checkpoint's folder.
        path: PathBuf,
        /// One line a kind of mismatch, with names and shapes.
        report: String,
    },
}

/// Attaches a path to an I/O error.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> WeightsError + '_ {
    move |source| WeightsError::Io { path: path.to_owned(), source }
}

/// Attaches a path to what is wrong with a text file.
pub(crate) fn text_error(path: &std::path::Path) -> impl FnOnce(crate::text::TextError) -> WeightsError + '_ {
    move |error| match error {
        crate::text::TextError::Io(source) => io(path)(source),
        crate::text::TextError::Content(reason) => WeightsError::Unsupported { path: path.to_owned(), reason },
    }
}
