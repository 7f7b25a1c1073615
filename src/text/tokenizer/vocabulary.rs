//! A tokenizer as the settings of a GGUF file.

use std::collections::BTreeMap;

use secateur_weights::Setting;
use serde_json::Value;

use super::{Kind, Tokenizer};
use crate::Error;

/// The types of tokens in a GGUF file.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// The tokens of a vocabulary, by id.
struct Tokens {
    texts: Vec<String>,
    scores: Vec<f32>,
    types: Vec<i32>,
}

impl Tokens {
    /// `count` tokens that no text becomes.
    fn unused(count: usize) -> Self {
        let texts = (0..count).map(|id| format!("[PAD{id}]")).collect();
        Self { texts, scores: vec![0.0; count], types: vec![UNUSED; count] }
    }

    fn set(&mut self, id: u32, text: &str, score: f32, kind: i32) {
        let id = id as usize;
        if id < self.texts.len() {
            (self.texts[id], self.scores[id], self.types[id]) = (text.to_owned(), score, kind);
        }
    }
}

impl Tokenizer {
    /// The settings that a GGUF file has for this tokenizer, for a model with `vocabulary` embeddings.
    ///
    /// # Errors
    /// When the tokenizer's own file cannot be taken apart.
    pub fn gguf_settings(&self, vocabulary: usize) -> Result<Vec<(String, Setting)>, Error> {
        let mut tokens = Tokens::unused(vocabulary);
        let (model, merges) = match &self.0 {
            Kind::Llama(tokenizer) => {
                tokenizer.list(|id, text, score, kind| tokens.set(id, text, score, kind))?;
                ("llama", None)
            }
            Kind::Bytes(tokenizer) => {
                let merges = tokenizer.list(|id, text, kind| tokens.set(id, text, 0.0, kind))?;
                ("gpt2", Some(merges))
            }
        };
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let pre = match (&merges, self.bos()) {
            (None, _) => "default",
            (Some(_), Some(_)) => "llama-bpe",
            // Qwen2's pieces of bytes have no start token.
            (Some(_), None) => "qwen2",
        };
        let mut settings = vec![
            (key("model"), Setting::Text(model.to_owned())),
            (key("pre"), Setting::Text(pre.to_owned())),
            (key("tokens"), Setting::Texts(tokens.texts)),
            (key("token_type"), Setting::Counts(tokens.types)),
            (key("eos_token_id"), Setting::Count(self.eos())),
            (key("add_bos_token"), Setting::Flag(self.bos().is_some())),
            (key("add_eos_token"), Setting::Flag(false)),
        ];
        settings.extend(self.bos().map(|bos| (key("bos_token_id"), Setting::Count(bos))));
        match merges {
            Some(merges) => settings.push((key("merges"), Setting::Texts(merges))),
            None => settings.push((key("scores"), Setting::Numbers(tokens.scores))),
        }
        Ok(settings)
    }
}

/// The type of a token of Llama's vocabulary: control tokens are those that `is_special` knows.
pub(super) fn kind_of(text: &str, is_special: bool) -> i32 {
    match text {
        "<unk>" => UNKNOWN,
        _ if is_special => CONTROL,
        _ if super::sentencepiece::byte_of(text).is_some() => BYTE,
        _ => NORMAL,
    }
}

/// The pieces and the merges of a `tokenizer.json`, in the order of the file.
pub(super) fn pieces_and_merges(json: &tokenizers::Tokenizer) -> Option<(BTreeMap<u32, String>, Vec<String>)> {
    let whole: Value = serde_json::from_str(&json.to_string(false).ok()?).ok()?;
    let pieces = whole["model"]["vocab"].as_object()?;
    let pieces = pieces.iter().map(|(piece, id)| Some((u32::try_from(id.as_u64()?).ok()?, piece.clone())));
    let merge = |merge: &Value| match merge {
        Value::String(merge) => Some(merge.clone()),
        Value::Array(pair) => Some(format!("{} {}", pair.first()?.as_str()?, pair.get(1)?.as_str()?)),
        _ => None,
    };
    let merges = whole["model"]["merges"].as_array()?.iter().map(merge).collect::<Option<_>>()?;
    Some((pieces.collect::<Option<_>>()?, merges))
}
