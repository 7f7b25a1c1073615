//! The body of `POST /v1/chat/completions`.

use std::marker::PhantomData;

use secateur_weights::json_words;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

use super::ApiError;
use crate::engine::{Decoding, Sampling};

/// The fields that are read; others are ignored, as clients send many.
#[derive(Debug, Deserialize)]
pub(in crate::serve) struct ChatRequest {
    pub(in crate::serve) model: Option<String>,
    pub(in crate::serve) messages: Vec<MessageIn>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    logprobs: Option<bool>,
    top_logprobs: Option<u64>,
    n: Option<u64>,
    pub(in crate::serve) secateur: Option<Value>,
    pub(in crate::serve) visual_token_budget: Option<Value>,
    pub(in crate::serve) pruning_ratio: Option<f64>,
}

/// A message of the conversation.
#[derive(Debug, Deserialize)]
pub(in crate::serve) struct MessageIn {
    pub(super) role: String,
    pub(super) content: Option<Content>,
}

/// A text, or parts.
#[derive(Debug)]
pub(super) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message.
#[derive(Debug, Deserialize)]
pub(super) struct Part {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) text: Option<String>,
    pub(super) image_url: Option<Url>,
}

/// An image's address, by itself or as `{"url": …}`.
#[derive(Debug)]
pub(super) struct Url(pub(super) String);

#[derive(Debug, Deserialize)]
struct UrlObject {
    url: String,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// A text at which the answer ends, or several.
#[derive(Debug)]
struct Stop(Vec<String>);

/// A text, a list or an object, for fields that take two of them.
struct OneOf<T>(&'static str, PhantomData<T>);

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOf::<Content>("a text or a list of parts", PhantomData))
    }
}

impl<'de> Visitor<'de> for OneOf<Content> {
    type Value = Content;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Content, A::Error> {
        let mut all = Vec::new();
        while let Some(part) = parts.next_element()? {
            all.push(part);
        }
        Ok(Content::Parts(all))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOf::<Url>("a text or an object with `url`", PhantomData))
    }
}

impl<'de> Visitor<'de> for OneOf<Url> {
    type Value = Url;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Url, E> {
        Ok(Url(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Url, A::Error> {
        UrlObject::deserialize(MapAccessDeserializer::new(map)).map(|object| Url(object.url))
    }
}

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOf::<Stop>("a text or a list of texts", PhantomData))
    }
}

impl<'de> Visitor<'de> for OneOf<Stop> {
    type Value = Stop;

    fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Stop, E> {
        Ok(Stop(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut texts: A) -> Result<Stop, A::Error> {
        let mut all = Vec::new();
        while let Some(text) = texts.next_element()? {
            all.push(text);
        }
        Ok(Stop(all))
    }
}

/// The largest number of stop texts, and the bytes of one.
const MOST_STOPS: usize = 16;
const LONGEST_STOP: usize = 1000;
/// The largest number of alternatives for a token.
const MOST_ALTERNATIVES: u64 = 20;

impl ChatRequest {
    /// Reads the bytes of a body.
    ///
    /// # Errors
    /// When they are no JSON, or a field has the wrong form.
    pub(in crate::serve) fn read(body: &[u8]) -> Result<Self, ApiError> {
        // Serde would take a list for an object, too.
        if body.trim_ascii_start().first().is_some_and(|&first| first != b'{') {
            let message = "the body: it is no JSON object, as {\"messages\": […]}";
            return Err(ApiError { code: "invalid_json", param: None, ..ApiError::bad("", message) });
        }
        let mut json = serde_json::Deserializer::from_slice(body);
        let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let field = error.path().to_string();
            let inner = error.inner();
            let words = json_words(inner, &field);
            if inner.is_data() {
                ApiError::bad(field, format!("the request: {words}"))
            } else {
                ApiError { code: "invalid_json", param: None, ..ApiError::bad("", format!("the body: {words}")) }
            }
        })?;
        json.end().map_err(|error| ApiError::bad("", format!("the body: {}", json_words(&error, "."))))?;
        Ok(read)
    }

    /// Whether the answer is sent as it grows.
    pub(in crate::serve) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream ends with the numbers of tokens.
    pub(in crate::serve) fn streams_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// The settings for decoding, with those of the command line where the request has none; `draw` picks the random numbers of a request without a
    /// seed.
    ///
    /// # Errors
    /// When a value is outside its range.
    pub(in crate::serve) fn decoding(&self, usual: Decoding, usual_seed: u64) -> Result<Decoding, ApiError> {
        if let Some(n) = self.n.filter(|&n| n != 1) {
            return Err(ApiError::bad("n", format!("`n` is {n}: a request has one answer; send it again for another")));
        }
        let (field, limit) = match (self.max_completion_tokens, self.max_tokens) {
            (Some(limit), _) => ("max_completion_tokens", Some(limit)),
            (None, limit) => ("max_tokens", limit),
        };
        if limit == Some(0) {
            return Err(ApiError::bad(field, format!("`{field}` is 0: an answer has at least one token")));
        }
        let (usual_temperature, usual_top_p) = match usual.sampling {
            Sampling::Greedy => (0.0, 1.0),
            Sampling::Random { temperature, top_p, .. } => (temperature, top_p),
        };
        let temperature = self.temperature.unwrap_or(usual_temperature);
        if !(0.0..=100.0).contains(&temperature) {
            let message = format!("`temperature` is {temperature}: 0 is greedy, 100 the most");
            return Err(ApiError::bad("temperature", message));
        }
        let top_p = self.top_p.unwrap_or(usual_top_p);
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(ApiError::bad("top_p", format!("`top_p` is {top_p}: it is above 0 and at most 1")));
        }
        let seed = self.seed.map_or(usual_seed, i64::cast_unsigned);
        let max_new_tokens = limit.map_or(usual.max_new_tokens, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(Decoding { max_new_tokens, sampling: Sampling::new(temperature, top_p, seed), ..usual })
    }

    /// Whether the request has a seed of its own, so that it is answered alike whenever it is sent.
    pub(in crate::serve) fn has_seed(&self) -> bool {
        self.seed.is_some()
    }

    /// The texts at which the answer ends.
    ///
    /// # Errors
    /// When there are too many, or one is empty or too long.
    pub(in crate::serve) fn stops(&self) -> Result<Vec<String>, ApiError> {
        let Some(Stop(texts)) = &self.stop else { return Ok(Vec::new()) };
        if texts.len() > MOST_STOPS {
            let message = format!("`stop` has {} texts; {MOST_STOPS} are the most", texts.len());
            return Err(ApiError::bad("stop", message));
        }
        if texts.iter().any(|text| text.is_empty() || text.len() > LONGEST_STOP) {
            let message = format!("a text of `stop` is empty or longer than {LONGEST_STOP} bytes");
            return Err(ApiError::bad("stop", message));
        }
        Ok(texts.clone())
    }

    /// The number of alternatives that each token is sent with; `None` without log probabilities.
    ///
    /// # Errors
    /// When there are too many, or they are asked for without `logprobs`.
    pub(in crate::serve) fn alternatives(&self) -> Result<Option<usize>, ApiError> {
        match (self.logprobs.unwrap_or(false), self.top_logprobs.unwrap_or(0)) {
            (_, count) if count > MOST_ALTERNATIVES => {
                let message = format!("`top_logprobs` is {count}; {MOST_ALTERNATIVES} are the most");
                Err(ApiError::bad("top_logprobs", message))
            }
            (false, 0) => Ok(None),
            (false, _) => Err(ApiError::bad("top_logprobs", "`top_logprobs` needs `\"logprobs\": true`")),
            (true, count) => Ok(Some(count as usize)),
        }
    }
}
