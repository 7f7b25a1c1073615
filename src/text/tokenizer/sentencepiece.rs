//! SentencePiece's `tokenizer.model`: the vocabulary, and its byte-pair merges by score.
//!
//! The original LLaVA checkpoints have no `tokenizer.json`. Converting the model to a Hugging Face merge list is not
//! exact: a piece that can be made of two different pairs gets two ranks there and one score here.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, HashMap},
    path::Path,
};

use prost::Message;
use secateur_weights::impostor;

use crate::{Error, files::read_bytes};

/// The part of `sentencepiece_model.proto` that encoding needs.
#[derive(Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerProto>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerProto>,
}

#[derive(Message)]
struct PieceProto {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Message)]
struct TrainerProto {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Message)]
struct NormalizerProto {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

/// The model type of byte-pair models, `ModelType::BPE`.
const BPE: i32 = 2;
/// The type of a piece that text may become; this and the next are values of `SentencePiece::Type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// A byte-pair vocabulary with scores.
pub(super) struct SentencePiece {
    /// Every piece, by id.
    pub(super) pieces: Vec<String>,
    /// Pieces that text never becomes: `<unk>`, `<s>`, `</s>`.
    pub(super) control: Vec<(String, u32)>,
    /// Pieces that text may become, with their scores.
    normal: HashMap<String, (u32, f32)>,
    bytes: [Option<u32>; 256],
    unknown: u32,
}

impl SentencePiece {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = read_bytes(path, "the tokenizer cannot be read")?;
        if let Some(impostor) = impostor(&file) {
            return Err(Error::config(path, impostor));
        }
        let model =
            ModelProto::decode(&file[..]).map_err(|_| Error::config(path, "not a SentencePiece model, or damaged"))?;
        let is_bpe = model.trainer.is_some_and(|t| t.model_type == Some(BPE));
        let plain = model
            .normalizer
            .is_none_or(|n| n.charsmap.is_none_or(|map| map.is_empty()) && n.remove_extra_whitespaces == Some(false));
        if !is_bpe || !plain || model.pieces.is_empty() {
            return Err(Error::config(
                path,
                "expected a byte-pair SentencePiece model that leaves text as it is, as Llama's",
            ));
        }
        Self::index(model.pieces).ok_or_else(|| {
            Error::config(
                path,
                "expected a vocabulary like Llama's: <unk>, <s>, </s>, bytes like <0x0A>, and normal pieces",
            )
        })
    }

    /// A vocabulary of pieces with their scores and types, as GGUF files list them; `None` if it is not like Llama's.
    pub(super) fn of(pieces: impl Iterator<Item = (String, f32, i32)>) -> Option<Self> {
        Self::index(pieces.map(|(piece, score, kind)| PieceProto { piece, score, kind: Some(kind) }).collect())
    }

    fn index(protos: Vec<PieceProto>) -> Option<Self> {
        let mut normal = HashMap::new();
        let mut control = Vec::new();
        let mut bytes = [None; 256];
        let mut unknown = None;
        for (id, piece) in (0u32..).zip(&protos) {
            match piece.kind.unwrap_or(NORMAL) {
                NORMAL => {
                    normal.insert(piece.piece.clone(), (id, piece.score));
                }
                BYTE => bytes[usize::from(byte_of(&piece.piece)?)] = Some(id),
                CONTROL => control.push((piece.piece.clone(), id)),
                UNKNOWN => {
                    unknown = Some(id);
                    control.push((piece.piece.clone(), id));
                }
                UNUSED => {}
                // Pieces that are matched before merging: Llama's vocabulary has none.
                _ => return None,
            }
        }
        let has = |name: &str| control.iter().any(|(piece, _)| piece == name);
        if !has("<s>") || !has("</s>") {
            return None;
        }
        let pieces = protos.into_iter().map(|piece| piece.piece).collect();
        Some(Self { pieces, control, normal, bytes, unknown: unknown? })
    }

    /// The ids of `text`, in which spaces are already `▁`.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for piece in self.merge(text) {
            match self.normal.get(piece) {
                Some(&(id, _)) => ids.push(id),
                None => ids.extend(piece.bytes().map(|b| self.bytes[usize::from(b)].unwrap_or(self.unknown))),
            }
        }
        ids
    }

    /// The score of a piece; 0 of one that text never becomes.
    pub(super) fn score(&self, piece: &str) -> f32 {
        self.normal.get(piece).map_or(0.0, |(_, score)| *score)
    }

    /// Whether `text` is a piece that text can become.
    pub(super) fn is_piece(&self, text: &str) -> bool {
        self.normal.contains_key(text)
    }

    /// Joins characters, the best-scored pair first and the leftmost of equals, until no pair is a piece.
    fn merge<'t>(&self, text: &'t str) -> Vec<&'t str> {
        let mut starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let symbols = starts.len();
        starts.push(text.len());
        // A doubly linked list over the characters; a symbol that was joined to its left has no end any more.
        let mut ends: Vec<Option<usize>> = (0..symbols).map(|i| Some(i + 1)).collect();
        let mut previous: Vec<Option<usize>> = (0..symbols).map(|i| i.checked_sub(1)).collect();
        let mut queue = BinaryHeap::new();
        let push = |queue: &mut BinaryHeap<Pair>, left: usize, middle: usize, end: usize| {
            if let Some(&(_, score)) = self.normal.get(&text[starts[left]..starts[end]]) {
                queue.push(Pair { score, left, middle, end });
            }
        };
        for left in 1..symbols {
            push(&mut queue, left - 1, left, left + 1);
        }
        while let Some(Pair { left, middle, end, .. }) = queue.pop() {
            if ends[left] != Some(middle) || ends.get(middle) != Some(&Some(end)) {
                continue;
            }
            ends[left] = Some(end);
            ends[middle] = None;
            if end < symbols {
                previous[end] = Some(left);
                if let Some(next) = ends[end] {
                    push(&mut queue, left, end, next);
                }
            }
            if let Some(before) = previous[left] {
                push(&mut queue, before, left, end);
            }
        }
        let mut pieces = Vec::new();
        let mut at = 0;
        while let Some(end) = ends.get(at).copied().flatten() {
            pieces.push(&text[starts[at]..starts[end]]);
            at = end;
        }
        pieces
    }
}

/// Two neighbouring symbols that together are a piece: `left..middle` and `middle..end`, in characters.
struct Pair {
    score: f32,
    left: usize,
    middle: usize,
    end: usize,
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// The byte of a piece like `<0x0A>`.
pub(super) fn byte_of(piece: &str) -> Option<u8> {
    let hex = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (hex.len() == 2).then(|| u8::from_str_radix(hex, 16).ok()).flatten()
}
