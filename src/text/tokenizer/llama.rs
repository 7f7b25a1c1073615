//! The Llama tokenizer, with the ids of `LlamaTokenizer(use_fast=False)`.
//!
//! Splitting at special tokens and the leading `▁` follow the slow tokenizer of transformers (both its `legacy`
//! behaviours); the pieces in between come from SentencePiece's `tokenizer.model`, or from the merges of
//! `tokenizer.json` where there is no other file. The two files differ around special tokens in running text, so the slow tokenizer's rule is
//! applied to both.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use tokenizers::{Model, ModelWrapper, Tokenizer};

use super::{
    check_pieces, read_config,
    sentencepiece::{SentencePiece, byte_of},
    vocabulary::{kind_of, pieces_and_merges},
};
use crate::{
    Error,
    files::read_json,
    text::{ADDED_TOKENS, TOKENIZER_MODEL, read_tokenizer},
    unwind::guarded,
};

/// SentencePiece's mark for a space.
const SPACE: char = '▁';

/// A tokenizer with SentencePiece's pieces.
pub(super) struct LlamaTokenizer {
    /// The file that the tokenizer was read from.
    path: PathBuf,
    pieces: Pieces,
    specials: Vec<(String, u32)>,
    legacy: bool,
    /// The rule by which an answer's spaces and bytes are written.
    pub(super) spaces: Spaces,
    bos: u32,
    eos: u32,
}

enum Pieces {
    Model(Box<SentencePiece>),
    Json(Box<Tokenizer>),
}

/// The rule by which decoded text is put together, where transformers' two tokenizers differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spaces {
    /// The slow tokenizer's rule: the rest of the first piece without its mark is decoded as a piece, and each byte that belongs to no character
    /// becomes U+FFFD.
    #[default]
    Slow,
    /// The fast tokenizer's rule: the first space goes, and in a run of bytes that is no UTF-8 every byte becomes U+FFFD.
    Fast,
}

impl LlamaTokenizer {
    /// Reads the tokenizer of a checkpoint folder: `tokenizer.model` if there is one, else `tokenizer.json`.
    /// `vocabulary` is the number of embeddings; added tokens beyond it, as some Vicuna folders have, are plain text.
    ///
    /// # Errors
    /// When neither file is there, the file is damaged or of another kind, or it has more pieces than the model.
    pub(super) fn read(folder: &Path, vocabulary: usize) -> Result<Self, Error> {
        let file = folder.join(super::Tokenizer::file(folder));
        let (pieces, mut specials) = if file.ends_with(TOKENIZER_MODEL) {
            let model = SentencePiece::read(&file)?;
            let specials = model.control.clone();
            (Pieces::Model(Box::new(model)), specials)
        } else if file.is_file() {
            read_pieces(&file)?
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
        let largest = match &pieces {
            Pieces::Model(model) => model.pieces.len().saturating_sub(1),
            Pieces::Json(json) => json.get_vocab(false).into_values().max().unwrap_or_default() as usize,
        };
        check_pieces(std::iter::once(largest as u32), vocabulary, &file)?;
        let config = read_config(folder)?;
        let id = |name: &str| {
            let found = specials.iter().find(|(text, _)| text == name).map(|&(_, id)| id);
            found.ok_or_else(|| Error::config(folder, format!("the tokenizer has no {name}")))
        };
        let (bos, eos) = (id("<s>")?, id("</s>")?);
        let (legacy, spaces) = (config.legacy.unwrap_or(true), Spaces::default());
        Ok(Self { path: file, pieces, specials, legacy, spaces, bos, eos })
    }

    /// A tokenizer of a vocabulary with scores, by the rule that transformers calls `legacy=False`. `path` is the file that it is from.
    pub(super) fn of(path: &Path, pieces: SentencePiece, [bos, eos]: [u32; 2]) -> Self {
        let specials = pieces.control.clone();
        let (pieces, spaces) = (Pieces::Model(Box::new(pieces)), Spaces::default());
        Self { path: path.to_owned(), pieces, specials, legacy: false, spaces, bos, eos }
    }

    /// Lists all tokens: id, text, score and type.
    ///
    /// # Errors
    /// When the tokenizer's file cannot be taken apart.
    pub(super) fn list(&self, mut token: impl FnMut(u32, &str, f32, i32)) -> Result<(), Error> {
        let is_special = |id: u32| self.specials.iter().any(|(_, special)| *special == id);
        match &self.pieces {
            Pieces::Model(model) => {
                for (id, piece) in (0..).zip(&model.pieces) {
                    token(id, piece, model.score(piece), kind_of(piece, is_special(id)));
                }
            }
            Pieces::Json(json) => {
                let (pieces, merges) = pieces_and_merges(json)
                    .ok_or_else(|| Error::config(&self.path, "its pieces and merges cannot be listed"))?;
                // The earliest merge that makes a piece is the best.
                let mut ranks = HashMap::new();
                for (rank, merge) in merges.iter().enumerate() {
                    ranks.entry(merge.replacen(' ', "", 1)).or_insert(rank);
                }
                for (id, piece) in &pieces {
                    let score = ranks.get(piece).map_or(0.0, |rank| -(*rank as f32));
                    token(*id, piece, score, kind_of(piece, is_special(*id)));
                }
            }
        }
        for (text, id) in &self.specials {
            token(*id, text, 0.0, kind_of(text, true));
        }
        Ok(())
    }

    /// The id of the special token `text`.
    pub(super) fn special(&self, text: &str) -> Option<u32> {
        self.specials.iter().find(|(special, _)| special == text).map(|&(_, id)| id)
    }

    /// The id that starts every prompt.
    pub(super) fn bos(&self) -> u32 {
        self.bos
    }

    /// The id that ends an answer.
    pub(super) fn eos(&self) -> u32 {
        self.eos
    }

    /// The ids of `text`, with the leading [`Self::bos`].
    ///
    /// # Errors
    /// When the tokenizer has no piece for a part of the text.
    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = vec![self.bos];
        if text.is_empty() {
            return Ok(ids);
        }
        let text = if self.legacy { text.to_owned() } else { format!("{SPACE}{}", text.replace(SPACE, " ")) };
        let segments = self.segments(&text);
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
                    ids.extend(self.pieces(&text)?);
                }
            }
        }
        Ok(ids)
    }

    /// The special tokens in `text`, the longest of several at one place, and the text between them.
    fn segments<'t>(&self, text: &'t str) -> Vec<Segment<'t>> {
        let mut segments = Vec::new();
        // The place where each special token is found next: none is looked for again before that place, so that many of them take no longer than few.
        let mut next: Vec<Option<usize>> = self.specials.iter().map(|(special, _)| text.find(special)).collect();
        let mut at = 0;
        loop {
            let found = next.iter().zip(&self.specials).filter_map(|(place, special)| Some(((*place)?, special)));
            let first = found.min_by_key(|(place, (special, _))| (*place, std::cmp::Reverse(special.len())));
            let Some((place, (special, id))) = first else { break };
            segments.push(Segment::Text(&text[at..place]));
            segments.push(Segment::Special(*id));
            at = place + special.len();
            for (place, (special, _)) in next.iter_mut().zip(&self.specials) {
                if place.is_some_and(|place| place < at) {
                    *place = text[at..].find(special).map(|found| at + found);
                }
            }
        }
        segments.push(Segment::Text(&text[at..]));
        segments.retain(|segment| !matches!(segment, Segment::Text("")));
        segments
    }

    /// The text of `ids`, without special tokens. Bytes that are no UTF-8 become U+FFFD.
    pub(super) fn decode(&self, ids: &[u32]) -> String {
        let ids = ids.iter().filter(|id| self.specials.iter().all(|(_, special)| special != *id));
        match self.spaces {
            Spaces::Slow => self.decode_slow(ids),
            Spaces::Fast => self.decode_fast(ids),
        }
    }

    fn decode_fast<'i>(&self, ids: impl Iterator<Item = &'i u32>) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        let flush = |bytes: &mut Vec<u8>, text: &mut String| {
            match str::from_utf8(bytes) {
                Ok(whole) => text.push_str(whole),
                Err(_) => text.extend(bytes.iter().map(|_| char::REPLACEMENT_CHARACTER)),
            }
            bytes.clear();
        };
        for &id in ids {
            let piece = self.piece(id);
            match byte_of(&piece) {
                Some(byte) => bytes.push(byte),
                None => {
                    flush(&mut bytes, &mut text);
                    text.extend(piece.chars().map(unmark));
                }
            }
        }
        flush(&mut bytes, &mut text);
        if text.starts_with(' ') { text.split_off(1) } else { text }
    }

    fn decode_slow<'i>(&self, ids: impl Iterator<Item = &'i u32>) -> String {
        let mut text = String::new();
        let mut bytes = Vec::new();
        for (i, &id) in ids.enumerate() {
            let piece = self.piece(id);
            if let Some(byte) = byte_of(&piece) {
                bytes.push(byte);
                continue;
            }
            flush(&mut bytes, &mut text);
            match piece.strip_prefix(SPACE).filter(|_| i == 0) {
                // The rest of the first piece is decoded as a piece; if it is none, the marks stay as they are.
                Some(rest) if !self.is_piece(rest) => text.push_str(rest),
                Some(rest) => text.extend(rest.chars().map(unmark)),
                None => text.extend(piece.chars().map(unmark)),
            }
        }
        flush(&mut bytes, &mut text);
        text
    }

    fn pieces(&self, text: &str) -> Result<Vec<u32>, Error> {
        let json = match &self.pieces {
            Pieces::Model(model) => return Ok(model.encode(text)),
            Pieces::Json(json) => json,
        };
        let tokens = guarded(|| json.get_model().tokenize(text)).and_then(Result::ok);
        let ids = tokens.map(|tokens| tokens.into_iter().map(|token| token.id).collect());
        ids.ok_or_else(|| Error::config(&self.path, "it has no pieces for a part of the text that it is to encode"))
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

fn read_pieces(path: &Path) -> Result<(Pieces, Vec<(String, u32)>), Error> {
    let mut json = read_tokenizer(path)?;
    let refuse = |reason: &str| Err(Error::config(path, reason));
    let ModelWrapper::BPE(model) = json.get_model() else {
        return refuse("expected a byte-pair model with byte fallback, as Llama's");
    };
    if !model.byte_fallback {
        return refuse("expected a byte-pair model with byte fallback, as Llama's");
    }
    if [&model.continuing_subword_prefix, &model.end_of_word_suffix].into_iter().flatten().any(|part| !part.is_empty())
    {
        return refuse(
            "it marks parts of words (continuing_subword_prefix, end_of_word_suffix), which Llama's does not",
        );
    }
    // Text without a piece would be dropped without a word.
    let has = |piece: &str| model.token_to_id(piece).is_some();
    let whole = (0..=u8::MAX).all(|byte| has(&format!("<0x{byte:02X}>")));
    if !whole && !model.unk_token.as_deref().is_some_and(has) {
        return refuse(
            "it lacks some of the pieces <0x00> to <0xFF>, and has none for unknown text, which would be dropped",
        );
    }
    // Merges that are left out at random are for training.
    let mut model = model.clone();
    model.dropout = None;
    json.with_model(model);
    let mut specials: Vec<_> =
        json.get_added_tokens_decoder().into_iter().map(|(id, token)| (token.content, id)).collect();
    specials.sort_by_key(|&(_, id)| id);
    Ok((Pieces::Json(Box::new(json)), specials))
}

/// Reads a JSON file that may be absent.
fn read_or_default<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    if !path.is_file() {
        return Ok(T::default());
    }
    read_json(path, "the tokenizer's settings cannot be read")
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
