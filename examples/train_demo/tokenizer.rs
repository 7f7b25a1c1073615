//! A SentencePiece vocabulary in which every word of the world is one token.
//!
//! Byte-pair merging only ever joins two pieces, so every beginning of a word is a piece too; whatever is no word of the
//! world is spelt in characters or bytes.

use std::collections::BTreeSet;

use prost::Message;
use secateur::{
    demo::{Colour, Shape},
    model::families::llava::chat::VICUNA_V1,
};

/// The part of `sentencepiece_model.proto` that readers look at.
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
    /// 2 is byte-pair encoding.
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Message)]
struct NormalizerProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
}

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Words of questions and answers beside the names of things.
const WORDS: &str = "Is there a an the in of on at image Are two three four five only one no color shape object How many \
                     Where What side left right top bottom Please answer yes or Yes No One Two Three Four Five Top \
                     Bottom Left Right Answer question using single word phrase picture";

/// `tokenizer.model`.
pub(crate) fn model() -> Vec<u8> {
    let mut words: BTreeSet<String> = WORDS.split_whitespace().map(str::to_owned).collect();
    for name in Shape::ALL
        .map(Shape::word)
        .into_iter()
        .chain(Shape::ALL.map(Shape::plural))
        .chain(Colour::ALL.map(Colour::word))
    {
        words.insert(name.to_owned());
        words.insert(format!("{}{}", name[..1].to_uppercase(), &name[1..]));
    }
    if let Ok(form) = VICUNA_V1.render("", &[]) {
        words.extend(form.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let spaced = words.iter().map(|word| format!("▁{word}"));
    // A question stands at the start of a line, without a space before it.
    let starts = ["Is", "Are", "How", "Where", "What", "Answer", "Please"].map(str::to_owned);
    let mut begun: BTreeSet<(usize, String)> = BTreeSet::new();
    for word in spaced.chain(starts) {
        let ends: Vec<usize> = word.char_indices().map(|(at, c)| at + c.len_utf8()).collect();
        begun.extend(ends.iter().enumerate().map(|(i, &end)| (i + 1, word[..end].to_owned())));
    }
    begun.extend((33u8..127).map(|byte| (1, char::from(byte).to_string())));

    let piece = |piece: String, score: f32, kind: i32| PieceProto { piece, score, kind: Some(kind) };
    let mut pieces = vec![
        piece("<unk>".to_owned(), 0.0, UNKNOWN),
        piece("<s>".to_owned(), 0.0, CONTROL),
        piece("</s>".to_owned(), 0.0, CONTROL),
    ];
    pieces.extend((0..=255u8).map(|byte| piece(format!("<0x{byte:02X}>"), 0.0, BYTE)));
    pieces.extend((0u16..).zip(begun).map(|(i, (_, text))| piece(text, -f32::from(i), NORMAL)));
    let trainer = TrainerProto { model_type: Some(2), byte_fallback: Some(true) };
    let normalizer = NormalizerProto { name: "identity".to_owned(), remove_extra_whitespaces: Some(false) };
    ModelProto { pieces, trainer: Some(trainer), normalizer: Some(normalizer) }.encode_to_vec()
}
