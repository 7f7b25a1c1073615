//! The tensors of a GGUF file: their types, and their places.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::DType;
use secateur_blocks::{BlockType, RowOrder};

use super::{
    Value,
    header::{Fault, Info},
};
use crate::{StoredTensor, WeightsError, mapped::Mapped, printable};

/// The setting that tensors are aligned by, and the alignment without it.
const ALIGNMENT: &str = "general.alignment";
const USUAL_ALIGNMENT: u64 = 32;

/// The types that are not read, for messages.
const UNREAD: [(u32, &str); 13] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
];

/// The type of a tensor's values in the file.
enum Stored {
    Floats(DType),
    Blocks(BlockType),
}

impl Stored {
    fn of(id: u32, name: &str) -> Result<Self, Fault> {
        Ok(match id {
            0 => Self::Floats(DType::F32),
            1 => Self::Floats(DType::F16),
            30 => Self::Floats(DType::BF16),
            28 => Self::Floats(DType::F64),
            24 => Self::Floats(DType::I8),
            25 => Self::Floats(DType::I16),
            26 => Self::Floats(DType::I32),
            27 => Self::Floats(DType::I64),
            id => match (BlockType::from_id(id), UNREAD.iter().find(|(known, _)| *known == id)) {
                (Some(kind), _) => Self::Blocks(kind),
                (None, Some((_, kind))) => {
                    let known = BlockType::ALL.map(BlockType::name).join(", ");
                    let reason = format!(
                        "tensor `{name}` is of type {id} ({kind}), which is not read; F32, F16, BF16, {known} are"
                    );
                    return Err(Fault::Unread(reason));
                }
                (None, None) => return Err(Fault::Unread(format!("tensor `{name}` is of the unknown type {id}"))),
            },
        })
    }

    /// The number of bytes of a tensor with `columns` values in a row.
    fn bytes(&self, columns: usize, values: usize, name: &str) -> Result<usize, Fault> {
        let too_large = || Fault::Damaged(format!("the shape of tensor `{name}` is too large for any file"));
        match self {
            Self::Floats(dtype) => values.checked_mul(dtype.size()).ok_or_else(too_large),
            Self::Blocks(kind) if !columns.is_multiple_of(kind.values()) => Err(Fault::Damaged(format!(
                "tensor `{name}` of type {kind} has {columns} columns; blocks hold {}, and a row has a multiple of that",
                kind.values()
            ))),
            Self::Blocks(kind) => (values / kind.values()).checked_mul(kind.bytes()).ok_or_else(too_large),
        }
    }
}

/// Lists the tensors of the file, whose header ends at byte `end`.
pub(super) fn list(
    path: &Path,
    file: &Mapped,
    settings: &BTreeMap<String, Value>,
    infos: Vec<Info>,
    end: usize,
) -> Result<BTreeMap<String, StoredTensor>, WeightsError> {
    place_all(file, settings, infos, end).map_err(|fault| fault.at(path))
}

fn place_all(
    file: &Mapped,
    settings: &BTreeMap<String, Value>,
    infos: Vec<Info>,
    end: usize,
) -> Result<BTreeMap<String, StoredTensor>, Fault> {
    let alignment = alignment(settings)?;
    // A file that ends with its header has no padding behind it.
    let start = (end as u64).next_multiple_of(alignment);
    let mut tensors = BTreeMap::new();
    for info in infos {
        let tensor = place(file, start, alignment, &info)?;
        if tensors.insert(info.name.clone(), tensor).is_some() {
            return Err(Fault::Damaged(format!("tensor `{}` is there twice", printable(&info.name))));
        }
    }
    let mut places: Vec<&StoredTensor> = tensors.values().filter(|tensor| !tensor.range.is_empty()).collect();
    places.sort_by_key(|tensor| tensor.range.start);
    if let Some([a, b]) = places.array_windows().find(|[a, b]| a.range.end > b.range.start) {
        let [a, b] = [a, b].map(|tensor| printable(&tensor.name));
        return Err(Fault::Damaged(format!("tensors `{a}` and `{b}` overlap: their offsets do not follow each other")));
    }
    Ok(tensors)
}

fn alignment(settings: &BTreeMap<String, Value>) -> Result<u64, Fault> {
    match settings.get(ALIGNMENT) {
        None => Ok(USUAL_ALIGNMENT),
        Some(&Value::Int(value)) if value > 0 && value <= 1 << 20 && value.count_ones() == 1 => Ok(value as u64),
        Some(other) => {
            let found = if let Value::Int(value) = other { value.to_string() } else { other.kind().to_owned() };
            Err(Fault::Damaged(format!("{ALIGNMENT} is {found}; a power of two is expected")))
        }
    }
}

fn place(file: &Mapped, start: u64, alignment: u64, info: &Info) -> Result<StoredTensor, Fault> {
    let name = printable(&info.name);
    let stored = Stored::of(info.kind, &name)?;
    let shape: Option<Vec<usize>> = info.dimensions.iter().rev().map(|size| usize::try_from(*size).ok()).collect();
    let values = shape.as_ref().and_then(|shape| shape.iter().try_fold(1usize, |all, size| all.checked_mul(*size)));
    let (Some(shape), Some(values)) = (shape, values) else {
        return Err(Fault::Damaged(format!("the shape of tensor `{name}` is too large for any file")));
    };
    let bytes = stored.bytes(shape.last().copied().unwrap_or(1), values, &name)?;
    if !info.offset.is_multiple_of(alignment) {
        let offset = info.offset;
        return Err(Fault::Damaged(format!(
            "the offset {offset} of tensor `{name}` is no multiple of the alignment {alignment}"
        )));
    }
    let from = start.checked_add(info.offset);
    let range =
        from.and_then(|from| Some(usize::try_from(from).ok()?..usize::try_from(from.checked_add(bytes as u64)?).ok()?));
    let range = range.filter(|range| range.end <= file.bytes().len()).ok_or_else(|| {
        let offset = info.offset;
        let reason =
            format!("tensor `{name}` has {bytes} bytes from offset {offset} on, beyond the end: the file is cut short");
        Fault::Damaged(reason)
    })?;
    let (dtype, blocks) = match stored {
        Stored::Floats(dtype) => (dtype, None),
        Stored::Blocks(kind) => (DType::F32, Some(kind)),
    };
    let (file, name) = (file.clone(), info.name.as_str().into());
    Ok(StoredTensor { shape, dtype, blocks, order: RowOrder::Plain, name, file, range, strides: None })
}
