//! Writing of GGUF files, tensor by tensor, so that no more than one is in memory.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
};

use burn::tensor::DType;
use secateur_blocks::BlockType;

use super::MAGIC;
use crate::{WeightsError, error::io};

/// The version that is written.
const VERSION: u32 = 3;
/// The alignment of tensors, which readers take where no setting has another.
const ALIGNMENT: usize = 32;

/// A setting, in the types that llama.cpp reads.
#[derive(Clone, Debug)]
pub enum Setting {
    /// A whole number.
    Count(u32),
    /// A number.
    Number(f32),
    /// Yes or no.
    Flag(bool),
    /// A text.
    Text(String),
    /// Texts.
    Texts(Vec<String>),
    /// Numbers.
    Numbers(Vec<f32>),
    /// Whole numbers.
    Counts(Vec<i32>),
}

impl Setting {
    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let list = |to: &mut dyn Write, kind: u32, count: usize| {
            to.write_all(&9u32.to_le_bytes())?;
            to.write_all(&kind.to_le_bytes())?;
            to.write_all(&(count as u64).to_le_bytes())
        };
        let kind = |to: &mut dyn Write, kind: u32| to.write_all(&kind.to_le_bytes());
        match self {
            Self::Count(count) => kind(to, 4).and_then(|()| to.write_all(&count.to_le_bytes())),
            Self::Number(number) => kind(to, 6).and_then(|()| to.write_all(&number.to_le_bytes())),
            Self::Flag(flag) => kind(to, 7).and_then(|()| to.write_all(&[u8::from(*flag)])),
            Self::Text(text) => kind(to, 8).and_then(|()| write_text(to, text)),
            Self::Texts(texts) => {
                list(to, 8, texts.len()).and_then(|()| texts.iter().try_for_each(|text| write_text(to, text)))
            }
            Self::Numbers(numbers) => {
                list(to, 6, numbers.len())?;
                numbers.iter().try_for_each(|number| to.write_all(&number.to_le_bytes()))
            }
            Self::Counts(counts) => {
                list(to, 5, counts.len())?;
                counts.iter().try_for_each(|count| to.write_all(&count.to_le_bytes()))
            }
        }
    }
}

fn write_text(to: &mut impl Write, text: &str) -> io::Result<()> {
    to.write_all(&(text.len() as u64).to_le_bytes())?;
    to.write_all(text.as_bytes())
}

/// The type of a tensor's values in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufType {
    /// Numbers in f32.
    F32,
    /// Numbers in f16.
    F16,
    /// Blocks.
    Blocks(BlockType),
}

impl GgufType {
    fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Blocks(kind) => kind.id(),
        }
    }

    /// The number of bytes of `shape`; its last dimension fills whole blocks.
    fn bytes(self, shape: &[usize]) -> usize {
        let values: usize = shape.iter().product();
        match self {
            Self::F32 => values * DType::F32.size(),
            Self::F16 => values * DType::F16.size(),
            Self::Blocks(kind) => values / kind.values() * kind.bytes(),
        }
    }
}

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// The name of the tensor.
    pub name: String,
    /// The dimensions, the innermost one last.
    pub shape: Vec<usize>,
    /// The type of the values.
    pub kind: GgufType,
}

/// Writes a GGUF file. `bytes` gives the bytes of the tensor of a number. The file gets its name when it is whole.
///
/// # Errors
/// When the file cannot be written.
///
/// # Panics
/// When `bytes` gives other than the tensor's shape and type have.
pub fn write_gguf(
    path: &Path,
    settings: &[(String, Setting)],
    tensors: &[GgufTensor],
    mut bytes: impl FnMut(usize) -> Vec<u8>,
) -> Result<(), WeightsError> {
    let part = path.with_extension("gguf.part");
    let mut write = || -> io::Result<()> {
        let mut file = BufWriter::new(File::create(&part)?);
        let header = header(settings, tensors)?;
        file.write_all(&header)?;
        let pad = |file: &mut BufWriter<File>, written: usize| {
            file.write_all(&[0; ALIGNMENT][..written.next_multiple_of(ALIGNMENT) - written])
        };
        pad(&mut file, header.len())?;
        for (i, tensor) in tensors.iter().enumerate() {
            let bytes = bytes(i);
            assert_eq!(bytes.len(), tensor.kind.bytes(&tensor.shape), "{}", tensor.name);
            file.write_all(&bytes)?;
            pad(&mut file, bytes.len())?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        std::fs::rename(&part, path)
    };
    write().map_err(|error| {
        // What was written is of no use; that it cannot be removed either is said by the first error.
        let _ = std::fs::remove_file(&part);
        io(path)(error)
    })
}

/// All bytes before the tensors.
fn header(settings: &[(String, Setting)], tensors: &[GgufTensor]) -> io::Result<Vec<u8>> {
    let mut to = MAGIC.to_vec();
    to.extend(VERSION.to_le_bytes());
    to.extend((tensors.len() as u64).to_le_bytes());
    to.extend((settings.len() as u64).to_le_bytes());
    for (key, setting) in settings {
        write_text(&mut to, key)?;
        setting.write(&mut to)?;
    }
    let mut offset = 0;
    for GgufTensor { name, shape, kind } in tensors {
        write_text(&mut to, name)?;
        to.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|size| to.extend((*size as u64).to_le_bytes()));
        to.extend(kind.id().to_le_bytes());
        to.extend((offset as u64).to_le_bytes());
        offset += kind.bytes(shape).next_multiple_of(ALIGNMENT);
    }
    Ok(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Gguf, Value};

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        let settings = [
            ("general.architecture".to_owned(), Setting::Text("llama".to_owned())),
            ("count".to_owned(), Setting::Count(7)),
            ("list".to_owned(), Setting::Texts(vec!["a".to_owned(), "ü".to_owned()])),
            ("numbers".to_owned(), Setting::Numbers(vec![0.5, -2.0])),
            ("flag".to_owned(), Setting::Flag(true)),
        ];
        let tensor =
            |name: &str, shape: &[usize], kind| GgufTensor { name: name.to_owned(), shape: shape.to_vec(), kind };
        let tensors =
            [tensor("odd", &[3], GgufType::F32), tensor("blocks", &[2, 32], GgufType::Blocks(BlockType::Q8_0))];
        let content = [[1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect(), vec![1u8; 68]];
        write_gguf(&path, &settings, &tensors, |i| content[i].clone()).unwrap();
        let read = Gguf::open(&path).unwrap();
        assert_eq!(read.text("general.architecture").unwrap(), Some("llama"));
        assert_eq!(read.count("count").unwrap(), Some(7));
        assert_eq!(read.flag("flag").unwrap(), Some(true));
        let text = |value: &Value| if let Value::Text(text) = value { Some(text.clone()) } else { None };
        assert_eq!(read.list("list", "texts", text).unwrap().unwrap(), ["a", "ü"]);
        assert_eq!(read.tensors["odd"].data().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
        assert_eq!(read.tensors["blocks"].shape, [2, 32]);
        assert_eq!(read.tensors["blocks"].blocks().unwrap().row(1), [1; 34]);
        assert!(!folder.path().join("a.gguf.part").exists());
        let error = write_gguf(&folder.path().join("no/a.gguf"), &settings, &[], |_| Vec::new()).unwrap_err();
        assert!(error.to_string().contains("a.gguf"), "{error}");
    }
}
