//! Errors of a checkpoint.

use std::path::PathBuf;

/// An error that names the file, what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A name that is neither a folder nor an id.
    #[error("`{id}` is no folder, and no id like `owner/name` on the hub; give one of them, or `demo`")]
    NoFolder {
        /// The name that was asked for.
        id: String,
    },
    /// A checkpoint or data set that is neither in the cache nor can be fetched.
    #[error("`{id}` {reason}; {advice}")]
    Hub {
        /// The name that was asked for.
        id: String,
        /// The reason, as the end of a sentence.
        reason: String,
        /// Advice on what to do without it.
        advice: String,
    },
    /// A file that must be there is not.
    #[error("{path}: not found; {hint}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The purpose of the file, and advice on what to do.
        hint: String,
    },
    /// The file could not be read.
    #[error("{path}: cannot be read")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what its name says, or is cut short.
    #[error("{path}: {reason}; the file is damaged or incomplete, fetch it again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage that was found.
        reason: String,
    },
    /// The file is whole but holds something that is not read.
    #[error("{path}: {reason}")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The content that is not read.
        reason: String,
    },
    /// Names or shapes do not fit the model.
    #[error("{path}: the tensors do not fit the model\n{report}")]
    Mismatch {
        /// The checkpoint's folder.
        path: PathBuf,
        /// A line for each kind of mismatch, with names and shapes.
        report: String,
    },
}

/// Attaches a path to an I/O error.
pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> WeightsError + '_ {
    move |source| WeightsError::Io { path: path.to_owned(), source }
}

/// Attaches a path to the error of a text file.
pub(crate) fn text_error(path: &std::path::Path) -> impl FnOnce(crate::text::TextError) -> WeightsError + '_ {
    move |error| match error {
        crate::text::TextError::Io(source) => io(path)(source),
        crate::text::TextError::Content(reason) => WeightsError::Unsupported { path: path.to_owned(), reason },
    }
}
