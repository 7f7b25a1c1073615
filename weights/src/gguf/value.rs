//! The settings of a GGUF file: their types, and how they are read.

use super::header::{Cursor, Fault};

/// A setting.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A whole number.
    Int(i128),
    /// A number.
    Float(f64),
    /// Yes or no.
    Bool(bool),
    /// A text.
    Text(String),
    /// A list of settings of one type.
    List(Vec<Value>),
}

/// The numbers of types in a file.
const STRING: u32 = 8;
const ARRAY: u32 = 9;

impl Value {
    /// The type of the value in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "a whole number",
            Self::Float(_) => "a number with a fraction",
            Self::Bool(_) => "true or false",
            Self::Text(_) => "a text",
            Self::List(_) => "a list",
        }
    }

    /// Reads a value behind the number of its type.
    pub(super) fn read(cursor: &mut Cursor) -> Result<Self, Fault> {
        let kind = cursor.u32("the type of a setting")?;
        if kind != ARRAY {
            return Self::of(kind, cursor);
        }
        let kind = cursor.u32("the type of a list")?;
        if kind == ARRAY {
            return Err(Fault::Unread("a list of lists, which no known file has".to_owned()));
        }
        let count = cursor.u64("the length of a list")?;
        // Memory is asked for only for what the file can hold.
        let least = u64::try_from(Self::size(kind)?).unwrap_or(u64::MAX);
        if count.checked_mul(least).is_none_or(|bytes| bytes > cursor.left() as u64) {
            return Err(Fault::Damaged(format!("a list of {count} values is too long for it: the file ends before")));
        }
        (0..count).map(|_| Self::of(kind, cursor)).collect::<Result<_, _>>().map(Self::List)
    }

    /// The number of bytes of a value of a type; the smallest one of a text.
    fn size(kind: u32) -> Result<usize, Fault> {
        Ok(match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            STRING | 10..=12 => 8,
            other => return Err(Fault::Damaged(format!("a setting is of the unknown type {other}"))),
        })
    }

    fn of(kind: u32, cursor: &mut Cursor) -> Result<Self, Fault> {
        if kind == STRING {
            return cursor.text("a setting").map(Self::Text);
        }
        let bytes = cursor.take(Self::size(kind)?, "a setting")?;
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(wide);
        Ok(match kind {
            0 | 2 | 4 | 10 => Self::Int(bits.into()),
            1 => Self::Int(i128::from(bits as u8 as i8)),
            3 => Self::Int(i128::from(bits as u16 as i16)),
            5 => Self::Int(i128::from(bits as u32 as i32)),
            11 => Self::Int(i128::from(bits as i64)),
            6 => Self::Float(f32::from_bits(bits as u32).into()),
            12 => Self::Float(f64::from_bits(bits)),
            _ => Self::Bool(bits != 0),
        })
    }
}
