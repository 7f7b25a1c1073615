//! The Llama tokenizer, with the ids of `LlamaTokenizer(use_fast=False)`.
//!
//! Splitting at special tokens and the leading `▁` follow the slow tokenizer of transformers (both its `legacy`
//! behaviours); the pieces in between come from SentencePiece's `tokenizer.model`, or from the merges of
//! `tokenizer.json` where that is all there is. The two differ around special tokens in running text, so the slow
//! rule is applied to both.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use tokenizers::{Model, ModelWrapper, Tokenizer};

use super::{
    ADDED_TOKENS, TOKENIZER_CONFIG, TOKENIZER_JSON, TOKENIZER_MODEL,
    sentencepiece::{SentencePiece, byte_of},
};
use crate::Error;

/// SentencePiece's mark for a space.
const SPACE: char = '▁';

/// Text to ids and back.
pub struct LlamaTokenizer {
    pieces: Pieces,
    specials: Vec<(String, u32)>,
    legacy: bool,
    bos: u32,
    eos: u32,
}

enum Pieces {
    Model(Box<SentencePiece>),
    Json(Box<Tokenizer>),
}

/// What matters in `tokenizer_config.json`.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    legacy: Option<bool>,
}

impl LlamaTokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.model` if there is one, else `tokenizer.json`.
    /// `vocabulary` is the number of embeddings; added tokens beyond it, as some Vicuna folders have, are plain text.
    ///
    /// # Errors
    /// When neither is there, the file is damaged or of another kind, or it has more pieces than the model.
    pub fn read(folder: &Path, vocabulary: usize) -> Result<Self, Error> {
        let file = folder.join(Self::file(folder));
        let (pieces, mut specials) = if file.ends_with(TOKENIZER_MODEL) {
            let model = SentencePiece::read(&file)?;
            let specials = model.control.clone();
            (Pieces::Model(Box::new(model)), specials)
        } else if file.is_file() {
            read_json(&file)?
        } else {
            return Err(Error::config(folder, "no tokenizer.model and no tokenizer.json in this folder"));
        };
        let added: BTreeMap<String, u32> = read_or_default(&folder.join(ADDED_TOKENS))?;
        for (text, id) in added {
            if specials.iter().all(|(special, _)| *special != text) {
                specials.push((text, id));
            }
        }
        // An empty text would be found everywhere.
        specials.retain(|(text, id)| !text.is_empty() && (*id as usize) < vocabulary);
        let pieces_len = match &pieces {
            Pieces::Model(model) => model.pieces.len(),
            Pieces::Json(json) => json.get_vocab_size(false),
        };
        if pieces_len > vocabulary {
            let reason = format!("the tokenizer has {pieces_len} pieces, the model {vocabulary} embeddings");
            return Err(Error::config(folder, format!("{reason}; they do not belong together")));
        }
        let config: TokenizerConfig = read_or_default(&folder.join(TOKENIZER_CONFIG))?;
        let id = |name: &str| {
            let found = specials.iter().find(|(text, _)| text == name).map(|&(_, id)| id);
            found.ok_or_else(|| Error::config(folder, format!("the tokenizer has no {name}")))
        };
        let (bos, eos) = (id("<s>")?, id("</s>")?);
        Ok(Self { pieces, specials, legacy: config.legacy.unwrap_or(true), bos, eos })
    }

    /// The file in a folder that it is read from.
    pub fn file(folder: &Path) -> &'static str {
        if folder.join(TOKENIZER_MODEL).is_file() { TOKENIZER_MODEL } else { TOKENIZER_JSON }
    }

    /// The id that starts every prompt.
    pub fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends an answer.
    pub fn eos(&self) -> u32 {
        self.eos
    }

    /// The ids of `text`, with the leading [`Self::bos`].
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = vec![self.bos];
        if text.is_empty() {
            return ids;
        }
        let text = if self.legacy { text.to_owned() } else { format!("{SPACE}{}", text.replace(SPACE, " ")) };
        let mut segments = Vec::new();
        let mut rest = &text[..];
        while let Some((at, special, id)) = self.next_special(rest) {
            segments.push(Segment::Text(&rest[..at]));
            segments.push(Segment::Special(id));
            rest = &rest[at + special..];
        }
        segments.push(Segment::Text(rest));
        segments.retain(|segment| !matches!(segment, Segment::Text("")));

        let mark = SPACE.to_string();
        for (i, segment) in segments.iter().enumerate() {
            match *segment {
                Segment::Special(id) => ids.push(id),
                // The mark that was put in front is not a token of its own before a special token.
                Segment::Text(text) if i == 0 && !self.legacy && text == mark && segments.len() > 1 => {}
                Segment::Text(text) => {
                    let mut text = text.replace(' ', &mark);
                    if self.legacy {
                        text.insert(0, SPACE);
                    }
                    ids.extend(self.pieces(&text));
                }
            }
        }
        ids
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become U+FFFD, one each.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let ids = ids.iter().filter(|id| self.specials.iter().all(|(_, special)| special != *id));
        for (i, &id) in ids.enumerate() {
            let piece = self.piece(id);
            if let Some(byte) = byte_of(&piece) {
                bytes.push(byte);
                continue;
            }
            flush(&mut bytes, &mut text);
            match piece.strip_prefix(SPACE).filter(|_| i == 0) {
                // What is left of the first piece is decoded as a piece; if it is none, the marks stay as they are.
                Some(rest) if !self.is_piece(rest) => text.push_str(rest),
                Some(rest) => text.extend(rest.chars().map(unmark)),
                None => text.extend(piece.chars().map(unmark)),
            }
        }
        flush(&mut bytes, &mut text);
        text
    }

    /// The first special token in `text`, the longest of several at one place: where, how long, which.
    fn next_special(&self, text: &str) -> Option<(usize, usize, u32)> {
        self.specials
            .iter()
            .filter_map(|(special, id)| text.find(special.as_str()).map(|at| (at, special.len(), *id)))
            .min_by_key(|&(at, len, _)| (at, std::cmp::Reverse(len)))
    }

    fn pieces(&self, text: &str) -> Vec<u32> {
        match &self.pieces {
            Pieces::Model(model) => model.encode(text),
            // A byte-pair model with byte fallback has an answer for every string.
            Pieces::Json(json) => json
                .get_model()
                .tokenize(text)
                .map(|tokens| tokens.into_iter().map(|t| t.id).collect())
                .unwrap_or_default(),
        }
    }

    fn is_piece(&self, text: &str) -> bool {
        match &self.pieces {
            Pieces::Model(model) => model.is_piece(text),
            Pieces::Json(json) => json.token_to_id(text).is_some(),
        }
    }

    fn piece(&self, id: u32) -> String {
        match &self.pieces {
            Pieces::Model(model) => model.pieces.get(id as usize).cloned().unwrap_or_default(),
            Pieces::Json(json) => json.id_to_token(id).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy)]
enum Segment<'t> {
    Text(&'t str),
    Special(u32),
}

fn read_json(path: &Path) -> Result<(Pieces, Vec<(String, u32)>), Error> {
    let json = Tokenizer::from_file(path).map_err(|e| Error::config(path, e.to_string()))?;
    if !matches!(json.get_model(), ModelWrapper::BPE(bpe) if bpe.byte_fallback) {
        return Err(Error::config(path, "expected a byte-pair model with byte fallback, as Llama's"));
    }
    let mut specials: Vec<_> =
        json.get_added_tokens_decoder().into_iter().map(|(id, token)| (token.content, id)).collect();
    specials.sort_by_key(|&(_, id)| id);
    Ok((Pieces::Json(Box::new(json)), specials))
}

/// A JSON file that may be absent.
fn read_or_default<T: Default + for<'de> Deserialize<'de>>(path: &Path) -> Result<T, Error> {
    if !path.is_file() {
        return Ok(T::default());
    }
    let text = std::fs::read_to_string(path).map_err(Error::io(path, "the tokenizer's settings cannot be read"))?;
    serde_json::from_str(&text).map_err(|e| Error::config(path, e.to_string()))
}

fn unmark(c: char) -> char {
    if c == SPACE { ' ' } else { c }
}

/// Appends `bytes` to `text` as UTF-8, each byte that belongs to no character as U+FFFD, as SentencePiece does.
fn flush(bytes: &mut Vec<u8>, text: &mut String) {
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
    }
    bytes.clear();
}
