//! What a client gets: a completion, or the chunks of one.

use serde::Serialize;

/// The answer to a request that does not stream.
#[derive(Debug, Serialize)]
pub(in crate::serve) struct Completion<'a> {
    pub(in crate::serve) id: &'a str,
    pub(in crate::serve) object: &'static str,
    pub(in crate::serve) created: u64,
    pub(in crate::serve) model: &'a str,
    pub(in crate::serve) choices: [Choice; 1],
    pub(in crate::serve) usage: Usage,
    pub(in crate::serve) timings: Timings,
    pub(in crate::serve) secateur: Pruned,
}

/// The only answer of a request.
#[derive(Debug, Serialize)]
pub(in crate::serve) struct Choice {
    pub(in crate::serve) index: usize,
    pub(in crate::serve) message: Message,
    pub(in crate::serve) logprobs: Option<Logprobs>,
    pub(in crate::serve) finish_reason: &'static str,
}

/// The answer's text.
#[derive(Debug, Serialize)]
pub(in crate::serve) struct Message {
    pub(in crate::serve) role: &'static str,
    pub(in crate::serve) content: String,
}

/// A part of an answer that streams.
#[derive(Debug, Serialize)]
pub(in crate::serve) struct Chunk<'a> {
    pub(in crate::serve) id: &'a str,
    pub(in crate::serve) object: &'static str,
    pub(in crate::serve) created: u64,
    pub(in crate::serve) model: &'a str,
    pub(in crate::serve) choices: Vec<Delta>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) secateur: Option<Pruned>,
}

/// The new part of an answer.
#[derive(Debug, Serialize)]
pub(in crate::serve) struct Delta {
    pub(in crate::serve) index: usize,
    pub(in crate::serve) delta: serde_json::Value,
    pub(in crate::serve) logprobs: Option<Logprobs>,
    pub(in crate::serve) finish_reason: Option<&'static str>,
}

/// The log probabilities of tokens.
#[derive(Clone, Debug, Default, Serialize)]
pub(in crate::serve) struct Logprobs {
    pub(in crate::serve) content: Vec<TokenLogprob>,
}

/// The log probability of a token, in the model's own softmax at a temperature of 1.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct TokenLogprob {
    pub(in crate::serve) token: String,
    pub(in crate::serve) logprob: f32,
    pub(in crate::serve) bytes: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) top_logprobs: Option<Vec<TokenLogprob>>,
}

/// The numbers of tokens.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct Usage {
    pub(in crate::serve) prompt_tokens: usize,
    pub(in crate::serve) completion_tokens: usize,
    pub(in crate::serve) total_tokens: usize,
    pub(in crate::serve) prompt_tokens_details: ImageTokens,
}

/// The parts of a prompt.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct ImageTokens {
    /// Tokens whose keys and values were taken over from a prompt before.
    pub(in crate::serve) cached_tokens: usize,
    /// Visual tokens that the language model read.
    pub(in crate::serve) image_tokens: usize,
    /// Visual tokens that it would have read without pruning.
    pub(in crate::serve) image_tokens_unpruned: usize,
}

/// Times in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct Timings {
    /// From the request's arrival to its turn.
    pub(in crate::serve) queue: f64,
    /// In the vision tower and the projector; 0 where the tower's output was kept from a request before.
    pub(in crate::serve) vision: f64,
    /// In the method.
    pub(in crate::serve) prune: f64,
    /// In the passes that read the prompt, beside others'.
    pub(in crate::serve) prefill: f64,
    /// From the first token to the last, beside others'.
    pub(in crate::serve) decode: f64,
}

/// What was pruned.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct Pruned {
    pub(in crate::serve) method: &'static str,
    pub(in crate::serve) visual_tokens: usize,
    pub(in crate::serve) visual_tokens_before: usize,
    /// Rows and columns of patches of a crop.
    pub(in crate::serve) grid: [usize; 2],
    /// The kept patches of each crop of each image, row by row from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) kept: Option<Vec<Vec<Vec<usize>>>>,
    /// Drawings of each image as data URLs: the kept patches, and the scores of the method where it has some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::serve) drawings: Option<Vec<Drawing>>,
}

/// The drawings of an image.
#[derive(Clone, Debug, Serialize)]
pub(in crate::serve) struct Drawing {
    /// The image with all but the kept patches dimmed.
    pub(in crate::serve) kept: String,
    /// The image under the ranks of the patches by the method's score, `null` for a method without one.
    pub(in crate::serve) scores: Option<String>,
}
