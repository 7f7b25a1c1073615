//! Errors in a user's file, flag or checkpoint. Anything else is a bug, and panics.

use std::path::{Path, PathBuf};

/// An error that names what was given, what was expected and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request that was cancelled.
    #[error("the request was cancelled")]
    Cancelled,
    /// An error in the checkpoint's tensors.
    #[error(transparent)]
    Weights(#[from] secateur_weights::WeightsError),
    /// A file that cannot be read or written.
    #[error("{path}: {action}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The action that failed.
        action: &'static str,
        /// The error of the system.
        #[source]
        source: std::io::Error,
    },
    /// An image that cannot be used.
    #[error("{path}: {reason}")]
    Image {
        /// The file.
        path: PathBuf,
        /// The reason, and what is read instead.
        reason: String,
    },
    /// A configuration or tokenizer file that does not describe a model we run.
    #[error("{path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The thing that is missing or unknown.
        reason: String,
    },
    /// A method that is not in the registry.
    #[error("unknown method `{name}`; known: {known}")]
    UnknownMethod {
        /// The name asked for.
        name: String,
        /// All known names.
        known: String,
    },
    /// A budget that no keep can have.
    #[error("a budget of {budget} tokens is not possible: 1 to {patches} of a crop can be kept here")]
    Budget {
        /// The number that was asked for.
        budget: usize,
        /// The largest possible budget.
        patches: usize,
    },
    /// A method was not given what it declares to need.
    #[error("method `{method}` needs the tensor `{cue}` {shape}, which is not there")]
    MissingCue {
        /// The method.
        method: &'static str,
        /// The cue's name, as in a cues file.
        cue: &'static str,
        /// The shape of the cue, in words.
        shape: &'static str,
    },
    /// `[CLS]` attention of another number of layers than a method reads.
    #[error("method `{method}` reads the `cls_attention` of {expected} layer, the selected one; there are {found}")]
    AttentionLayers {
        /// The method.
        method: &'static str,
        /// The number of layers that the method reads.
        expected: usize,
        /// The number of layers that were given.
        found: usize,
    },
    /// A benchmark that is not in the registry.
    #[error("unknown benchmark `{name}`; known: {known}")]
    UnknownBenchmark {
        /// The name asked for.
        name: String,
        /// All known names.
        known: String,
    },
    /// A shape that is not known.
    #[error("unknown shape `{name}`; known: {known}")]
    UnknownShape {
        /// The name asked for.
        name: String,
        /// All known names.
        known: String,
    },
    /// A cues file whose tensors do not fit each other.
    #[error("{path}: {reason}")]
    Cues {
        /// The file.
        path: PathBuf,
        /// The tensors that do not fit.
        reason: String,
    },
    /// A prompt with another number of `<image>` placeholders than images.
    #[error(
        "the question has {placeholders} `<image>` placeholders for {images} image(s) and frames; leave them out, or give one for each"
    )]
    ImagePlaceholders {
        /// The number of placeholders in the question.
        placeholders: usize,
        /// The number of images and frames that were given.
        images: usize,
    },
    /// A video for a model that sees images only.
    #[error(
        "{path}: a folder of frames or a video, and this model sees images only; LanguageBind/Video-LLaVA-7B sees both"
    )]
    NoVideo {
        /// The video.
        path: PathBuf,
    },
    /// An image that is much longer than it is wide, or wider than long.
    #[error("an image of {width}×{height} pixels: one side may be {most} times as long as the other at most")]
    Ratio {
        /// The width in pixels.
        width: usize,
        /// The height in pixels.
        height: usize,
        /// The largest ratio.
        most: usize,
    },
    /// A video that cannot be used.
    #[error("{path}: {reason}")]
    Video {
        /// The file or folder.
        path: PathBuf,
        /// The reason, and what to do.
        reason: String,
    },
    /// `<video>` placeholders that do not fit the videos.
    #[error(
        "`{question}` has a `<video>` where no video's turn is; images and videos go to the placeholders in their order"
    )]
    VideoPlaceholders {
        /// The question.
        question: String,
    },
    /// A method that compares the image with the question, in a model that was loaded without CLIP's text side.
    #[error("this method reads CLIP's text side, which was not loaded with the model")]
    NoClipText,
    /// A cut inside the decoder that leaves no layer on one side.
    #[error("tokens cannot be dropped before layer {layer}: the language model has {layers}, and --fastv-layer takes 1 to {}", layers - 1)]
    Layer {
        /// The number that was asked for.
        layer: usize,
        /// The number of layers of the decoder.
        layers: usize,
    },
    /// A question of a benchmark that cannot be asked.
    #[error("question {id}")]
    Question {
        /// The id of the question.
        id: String,
        /// The reason.
        #[source]
        source: Box<Error>,
    },
    /// Numbers that are not finite, on the way to an answer.
    #[error("{part} gives numbers that are not finite: `{tensor}` in {}: {found}", file.display())]
    NotFinite {
        /// The first part of the model that gives such numbers.
        part: String,
        /// The tensor, by its name in the file.
        tensor: String,
        /// The file that it lies in.
        file: PathBuf,
        /// The count of its numbers that are not finite, or the statement that all are finite and the part overflows.
        found: String,
    },
    /// A prompt that ends with its image.
    #[error("the prompt ends with its image; attention to it is measured from the text after it")]
    NoText,
    /// A prompt that does not fit the model.
    #[error(
        "the prompt has {prompt} tokens, and the model reads {limit} with its answer; shorten the question, or prune more \
         before the language model"
    )]
    TooLong {
        /// The number of tokens of the prompt, visual tokens included.
        prompt: usize,
        /// The length of the model's context.
        limit: usize,
    },
    /// A judge that does not answer.
    #[error("the judge at {url} {reason}")]
    Judge {
        /// The address of the judge.
        url: String,
        /// The behaviour of the judge, as the end of a sentence.
        reason: String,
    },
    /// Benchmark data or answers with an error.
    #[error("{path}: {reason}")]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// The error in the file.
        reason: String,
    },
}

impl Error {
    /// An I/O error on `path` while doing `action`.
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, action, source }
    }

    /// A configuration error on `path`.
    pub(crate) fn config(path: &Path, reason: impl Into<String>) -> Self {
        Self::Config { path: path.to_owned(), reason: reason.into() }
    }

    /// A data error on `path`.
    pub(crate) fn data(path: &Path, reason: impl Into<String>) -> Self {
        Self::Data { path: path.to_owned(), reason: reason.into() }
    }
}
